"""A word that only clients say is found nowhere in what the server writes: not in its log, spans and metrics, nor in
errors, whatever becomes of the request that said it; nor in the store, unless it is a response that may be kept."""

import asyncio
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models.engines.base import EngineBusy, EngineDead, EngineError, EngineRestarting
from models.engines.scripted import Line, ScriptedEngine, ScriptedReply
from server.app import create_app
from server.config.load import LoggingConfig, parse_config
from server.observability import logs
from server.observability.tracing import span_observer
from server.stores import open_responses
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.judges import JUDGE

CANARY = "xyzzy-canary"
TURN = {"role": "user", "content": CANARY}
CHAT = {"model": "demo", "messages": [{"role": "system", "content": CANARY}, TURN]}
TOOL = {"type": "function", "function": {"name": "f", "description": CANARY, "parameters": {"type": "object"}}}
PAIR = {"query": CANARY, "replies": [CANARY + "1", CANARY + "2"]}
REPLY = {"output": [{"type": "message", "content": CANARY}]}
HEADERS = {"user-agent": CANARY, "x-request-id": f"{CANARY} ", "cookie": CANARY, "x-api-key": CANARY}
WELL_FORMED = {
    "/v1/chat/completions": {**CHAT, "tools": [TOOL], "stop": [CANARY], "user": CANARY, "metadata": {"a": CANARY}},
    "/v1/completions": {"model": "demo", "prompt": CANARY},
    "/v1/responses": {"model": "demo", "input": CANARY, "instructions": CANARY, "background": True},
    "/v1/messages": {"model": "demo", "system": CANARY, "messages": [TURN], "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": "demo", "messages": [TURN]},
    "/v1/rewards/compare": {"model": "judge", **PAIR},
    "/v1/rewards/score": {"model": "judge", **PAIR, "rubric": CANARY},
    "/v1/rewards/rank": {"model": "judge", "items": [PAIR, {"query": CANARY}]},
    "/v1/responses/input_tokens": {"model": "demo", "input": CANARY},
    **{path: {"model": "judge", "text_1": CANARY, "text_2": [CANARY, "5"]} for path in ("/score", "/v1/score")},
    **{
        path: {"model": "judge", "query": CANARY, "documents": [CANARY, "5"]}
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    },
    "/get_reward": {"query": [CANARY], "prompts": [CANARY], "labels": [CANARY]},
    "/reward": {"prompt": CANARY, "response": CANARY, "label": CANARY},
    "/classify": {"model": "judge", "input": CANARY, "reference": CANARY},
    "/verify": {"responses_create_params": {"input": CANARY}, "response": REPLY, "verifier_metadata": {"a": CANARY}},
    "/compare": {"conversation_history": [TURN], "response_objs": [REPLY, REPLY], "principle": CANARY},
    "/seed_session": {"a": CANARY},
    "/tokenize": {"model": "demo", "prompt": CANARY},
    "/detokenize": {"model": "demo", "tokens": [1, 2], "a": CANARY},
}
UNKEPT = {"model": "demo", "input": CANARY, "store": False}
WITHOUT_BODY = {
    "/v1/reasoning/{request_id}/answer",
    "/v1/reasoning/{request_id}/cancel",
    "/v1/responses/{response_id}/cancel",
}
BROKEN = [
    {"messages": CANARY},
    {"messages": [{"role": CANARY, "content": CANARY}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]},
    {"messages": [], "input": [{"type": CANARY, "text": CANARY}], "prompt": {"a": CANARY}},
    {"messages": [TURN] * 2000, "prompt": CANARY * 9999, "input": CANARY * 9999, "query": 1, "replies": [CANARY]},
    {"messages": [TURN, {"role": "tool", "tool_call_id": CANARY, "content": CANARY}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": CANARY}}}},
    {"text_1": {"a": CANARY}, "documents": CANARY, "text_2": 1},
]


def failing(error: Exception) -> list[ScriptedReply]:
    """An engine that says something and then fails so."""
    return [ScriptedReply(f"<no_think>{CANARY}", error=error)]


SCRIPTS: dict[str, Sequence[Line]] = {
    "well": ["<think>so</think>" + CANARY],
    "broken calls": [f'<no_think><tool_call>{{"name": "{CANARY}", "arguments": {{"a": "{CANARY}'],
    "fails": failing(RuntimeError(f"cannot go on with {CANARY}")),
    "refuses": failing(EngineError("engine demo failed")),
    "is dead": failing(EngineDead("engine demo has stopped")),
    "starts again": failing(EngineRestarting("engine demo is being started again", 3)),
    "is busy": failing(EngineBusy("too many")),
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    text, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(LoggingConfig(level="debug", requests=True, format="json"), text)
    client = logging.getLogger("httpx")  # which says here what the test asks for
    client.disabled = True
    yield text
    client.disabled = False
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.anyio
@pytest.mark.parametrize("ending", SCRIPTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_clients_and_models_say_is_written_nowhere(tokenizer, make_client, log, ending, stream):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engines = {name: ScriptedEngine(tokenizer, SCRIPTS[ending], name=name) for name in ("demo", "judge")}
    config = parse_config(ENGINE_AND_ROUTE + JUDGE, ROOT)
    app = create_app(config, engines, [logs.log_request, span_observer(provider)])
    errors = []
    async with make_client(app) as client:
        for path, body in WELL_FORMED.items():
            for change in ({}, *(BROKEN if ending == "well" else ())):
                sent = {**body, **{name: value for name, value in change.items() if name in body}}
                told = {"stream": True, "background": False} if stream and path.startswith("/v1/") else {}
                answer = await client.post(path, json={**sent, **told}, headers=HEADERS)
                if answer.status_code != 200:
                    errors.append(answer.text)
            errors.append((await client.post(path, content=f'{{"model": "demo", "{CANARY}'.encode())).text)
            await client.post(f"{path}/{CANARY}", json=body, params={CANARY: CANARY})  # who asks so is told the path
        for task in list(app.state.runtime.background):
            await task
        metrics = (await client.get("/metrics")).text
    spans = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert {route.path for route in app.routes if "POST" in route.methods} <= {*WELL_FORMED, *WITHOUT_BODY}
    assert len(errors) >= len(WELL_FORMED) and "request_id" in log.getvalue() and "reasond.request_id" in spans
    for written in (log.getvalue(), spans, metrics, *errors):
        at = written.find(CANARY)
        assert at < 0, written[max(0, at - 300) : at + 100]


def test_a_store_keeps_verdicts_without_what_was_judged_and_only_responses_that_may_be_kept(tokenizer, tmp_path):
    asyncio.run(_stored(tokenizer, tmp_path / "store.db"))
    files = list(tmp_path.iterdir())
    assert files and all(file.stat().st_mode & 0o077 == 0 for file in files)
    written = b"".join(file.read_bytes() for file in files)
    assert b"reasond:verdict:" in written and CANARY.encode() not in written


async def _stored(tokenizer, path: Path) -> None:
    """What leads to writing: a verdict that replicas share, and a response that must not be kept."""
    judge = JUDGE + "judge = { shared_cache = true }\n"
    config = parse_config(f'[server]\nstore = "sqlite:{path}"\n{ENGINE_AND_ROUTE}{judge}', ROOT)
    scripts = {"demo": SCRIPTS["well"], "judge": ["<think>so</think>\\boxed{Assistant 1}"]}
    engines = {name: ScriptedEngine(tokenizer, script, name=name) for name, script in scripts.items()}
    responses = open_responses(config)
    app = create_app(config, engines, store=responses)
    running = asyncio.create_task(responses.run(app.state.runtime.running.ask))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reasond") as client:
        for path_, body in (("/v1/rewards/compare", {"model": "judge", **PAIR}), ("/v1/responses", UNKEPT)):
            answer = await client.post(path_, json=body)
            assert answer.status_code == 200, answer.text
    await responses.flush()
    running.cancel()
    await asyncio.wait([running])
    await responses.close()
