"""A route's target is killed in the middle of fifty streams: a vLLM server elsewhere, which comes back, and an engine
in this process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import httpx
import orjson
import pytest

from models.engines import VllmEngineConfig, load
from models.engines.base import Engine, Prompt
from models.engines.remote import RemoteEngine
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.conftest import ENGINE_ARGS, ENGINE_ENV, random_model
from tests.processes import ROOT, free_port, vllm

ENGINES = """
[engines.small]
kind = "scripted"
model = "demo/tokenizer"

[engines.large]
kind = "remote"
url = "http://127.0.0.1:1"
model = "demo/tokenizer"
"""
ROUTE = """
[routes.{name}]
controller = "speculative"
engine = "small"
family = "lhrm"
mode = "think"
speculative = {{ target = "large", on_failure = "{name}", rest_seconds = 0.2, takeover_tokens = {tokens} }}
"""
TOKENS = 800
pytestmark = [pytest.mark.accept, pytest.mark.e2e]


def body(route: str) -> dict[str, object]:
    return {"model": route, "messages": [{"role": "user", "content": "hi"}], "stream": True, "temperature": 1}


def test_all_streams_end_and_the_route_is_whole_again_when_its_target_is(
    tmp_path: Path, tokenizer: HubTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    asyncio.run(elsewhere(random_model(tmp_path), tokenizer))


def test_all_streams_end_when_the_target_in_this_process_dies(
    tmp_path: Path, tokenizer: HubTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    asyncio.run(in_this_process(random_model(tmp_path), tokenizer))


async def elsewhere(model: Path, tokenizer: HubTokenizer) -> None:
    port = free_port()
    with vllm(model, ENGINE_ARGS, port) as (url, process):
        remote = await RemoteEngine.connect(url, tokenizer, name="large")
        async with over(remote, tokenizer) as client:
            await killed(client, remote, partial(os.killpg, process.pid, signal.SIGKILL))
            with vllm(model, ENGINE_ARGS, port):
                assert '"target_failure":null' in await ask(client, "alone")
                assert (await client.get("/ready")).json() == {"status": "ready"}
        await remote.close()


async def in_this_process(model: Path, tokenizer: HubTokenizer) -> None:
    others = set(active_children())
    engine = await load("large", VllmEngineConfig(model=str(model), args=ENGINE_ARGS, env=ENGINE_ENV))
    (core,) = set(active_children()) - others
    async with over(engine, tokenizer) as client:
        await killed(client, engine, core.kill)
        assert '"target_failure":"d' in await ask(client, "alone")  # still dead, or left alone
    await engine.close()


@asynccontextmanager
async def over(target: Engine, tokenizer: HubTokenizer) -> AsyncIterator[httpx.AsyncClient]:
    """A server with this target, beside a scripted small model."""
    settings = ENGINES + "".join(ROUTE.format(name=name, tokens=TOKENS) for name in ("alone", "fail"))
    small = ScriptedEngine(tokenizer, lambda prompt, _: going_on(tokenizer, prompt), name="small")
    app = create_app(parse_config(settings, ROOT), {"small": small, "large": target})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # what fails behind its first byte is closed
    async with httpx.AsyncClient(transport=transport, base_url="http://reasond") as client:
        yield client
    assert small.running() == 0


async def killed(client: httpx.AsyncClient, target: Engine, kill: Callable[[], None]) -> None:
    """Fifty streams that go on without their target, and five that may not, when it is killed among them."""

    async def among_them() -> None:
        while target.running() < 50:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        kill()

    assert '"target":true' in await ask(client, "alone")  # an engine's first request is slow
    routes = ["alone"] * 50 + ["fail"] * 5
    async with asyncio.timeout(120):
        *answers, _ = await asyncio.gather(*(ask(client, route) for route in routes), among_them())
    alone, fail = answers[:50], answers[50:]
    assert target.running() == 0
    assert all(text.endswith("data: [DONE]\n\n") and '"finish_reason":"stop"' in text for text in alone)
    broken = [text for text in alone if '"target_failure":null' not in text]
    assert all(answer_in(text) == "small end" for text in broken)
    assert sum('"target":true' in text for text in broken) > 10
    failed = [text for text in fail if '"error"' in text]  # the others were done before the kill
    assert failed and all('"target_failure":null' in text for text in fail if text not in failed)
    assert (await client.get("/ready")).status_code == 503  # for the sake of the route that may fail
    assert (await client.get("/v1/models/alone")).json()["reasond"]["speculative"]["degraded"]


async def ask(client: httpx.AsyncClient, route: str) -> str:
    answer = await client.post("/v1/chat/completions", json=body(route), timeout=100)
    return answer.text


def answer_in(stream: str) -> str:
    events = [orjson.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def going_on(tokenizer: HubTokenizer, prompt: Prompt) -> str:
    said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
    return " and so</think>small end" if said.count("\n\n") else "One.\n\nWait, no. And on."
