"""A word that only clients say is found nowhere in what the server writes: not in its log, spans and metrics, nor in
errors, whatever becomes of the request that said it."""

import io
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models.engines.base import EngineError
from models.engines.scripted import ScriptedEngine, ScriptedReply
from server.app import create_app
from server.config.load import LoggingConfig, parse_config
from server.observability import logs
from server.observability.tracing import span_observer
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.judges import JUDGE

CANARY = "xyzzy-canary"
TURN = {"role": "user", "content": CANARY}
CHAT = {"model": "demo", "messages": [{"role": "system", "content": CANARY}, TURN]}
TOOL = {"type": "function", "function": {"name": "f", "description": CANARY, "parameters": {"type": "object"}}}
PAIR = {"query": CANARY, "replies": [CANARY + "1", CANARY + "2"]}
WELL_FORMED = {
    "/v1/chat/completions": {**CHAT, "tools": [TOOL], "stop": [CANARY], "user": CANARY, "metadata": {"a": CANARY}},
    "/v1/completions": {"model": "demo", "prompt": CANARY},
    "/v1/responses": {"model": "demo", "input": CANARY, "instructions": CANARY, "background": True},
    "/v1/messages": {"model": "demo", "system": CANARY, "messages": [TURN], "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": "demo", "messages": [TURN]},
    "/v1/rewards/compare": {"model": "judge", **PAIR},
    "/v1/rewards/score": {"model": "judge", **PAIR, "rubric": CANARY},
    "/v1/rewards/rank": {"model": "judge", "items": [PAIR, {"query": CANARY}]},
    "/score": {"model": "judge", "text_1": CANARY, "text_2": [CANARY, "5"]},
    "/rerank": {"model": "judge", "query": CANARY, "documents": [CANARY, "5"]},
    "/tokenize": {"model": "demo", "prompt": CANARY},
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


def failing(prompt, sampling) -> ScriptedReply:
    return ScriptedReply(f"<no_think>{CANARY}", error=RuntimeError(f"cannot go on with {CANARY}"))


def refusing(prompt, sampling) -> ScriptedReply:
    return ScriptedReply(CANARY, error=EngineError("engine demo failed"))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    text, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(LoggingConfig(level="debug", requests=True, format="json"), text)
    yield text
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script", [["<think>so</think>" + CANARY], failing, refusing], ids=["well", "fails", "refuses"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_clients_and_models_say_is_written_nowhere(tokenizer, make_client, log, script, stream):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engines = {name: ScriptedEngine(tokenizer, script, name=name) for name in ("demo", "judge")}
    config = parse_config(ENGINE_AND_ROUTE + JUDGE, ROOT)
    app = create_app(config, engines, [logs.log_request, span_observer(provider)])
    errors = []
    async with make_client(app) as client:
        for path, body in WELL_FORMED.items():
            for change in ({}, *BROKEN):
                sent = {**body, **{name: value for name, value in change.items() if name in body}}
                told = {"stream": True, "background": False} if stream and path.startswith("/v1/") else {}
                answer = await client.post(path, json={**sent, **told})
                if answer.status_code != 200:
                    errors.append(answer.text)
            errors.append((await client.post(path, content=f'{{"model": "demo", "{CANARY}'.encode())).text)
        for task in list(app.state.runtime.background):
            await task
        metrics = (await client.get("/metrics")).text
    spans = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert len(errors) > 2 * len(WELL_FORMED) and "request_id" in log.getvalue() and "reasond.request_id" in spans
    for written in (log.getvalue(), spans, metrics, *errors):
        at = written.find(CANARY)
        assert at < 0, written[max(0, at - 300) : at + 100]
