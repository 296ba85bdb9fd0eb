"""What the server says and does while an engine of its own is dead, until it is up again or lost."""

import asyncio
import contextlib
import json
import sys
from contextlib import AsyncExitStack

import httpx
import pytest
import uvloop

from models.engines import supervised
from models.engines.scripted import ScriptedEngine
from models.engines.supervised import SupervisedEngine, SupervisionConfig
from server.app import create_app
from server.config.load import Config, parse_config
from server.engines import start_engines
from server.serve import _serve_app
from tests.processes import free_port
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}]}
PAIR = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
[engines.large]
kind = "scripted"
model = "demo/tokenizer"
[routes.demo]
controller = "speculative"
engine = "demo"
family = "lhrm"
mode = "think"
speculative = { target = "large", on_failure = "alone" }
"""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "WATCH_SECONDS", 0.02)


class Server:
    """A server over engines that are started when `may_start` is set."""

    def __init__(self, tokenizer, text: str = ENGINE_AND_ROUTE, **settings: float) -> None:
        self.config: Config = parse_config(text, ROOT)
        self.settings = SupervisionConfig(**{"backoff_seconds": 0.01, "wait_seconds": 0.0, **settings})
        self.tokenizer = tokenizer
        self.started: dict[str, list[ScriptedEngine]] = {name: [] for name in self.config.engines}
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.engines: dict[str, SupervisedEngine] = {}

    async def start(self, name: str) -> ScriptedEngine:
        await self.may_start.wait()
        script = ["<think>so.\n\n</think>" + "5 " * 30]
        self.started[name].append(ScriptedEngine(self.tokenizer, script, name=name, token_delay=0.01))
        return self.started[name][-1]

    @contextlib.asynccontextmanager
    async def client(self):
        for name in self.config.engines:
            engine = await self.start(name)
            self.engines[name] = SupervisedEngine(engine, lambda name=name: self.start(name), self.settings)
        transport = httpx.ASGITransport(create_app(self.config, self.engines), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://reasond", timeout=20) as client:
            yield client
        for engine in self.engines.values():
            await engine.close()

    async def kill(self, name: str = "demo") -> None:
        """Kills an engine, and waits until that is noticed."""
        await self.started[name][-1].kill()
        async with asyncio.timeout(5):
            while not sum(self.engines[name].ends.values()):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.005)


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


@pytest.mark.anyio
async def test_an_engine_that_is_being_started_again_is_told_and_then_served_from(tokenizer):
    server = Server(tokenizer)
    async with server.client() as client:
        assert await metric(client, 'reasond:engine_up{engine="demo"}') == 1
        server.may_start.clear()
        await server.kill()
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "engine down", "engines": {"demo": "restarting"}})
        assert (await client.get("/health")).status_code == 200
        refusal = await client.post("/v1/chat/completions", json=CHAT)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "engine_restarting")
        assert refusal.headers["retry-after"] == "1"
        assert await metric(client, 'reasond:engine_up{engine="demo"}') == 0
        assert await metric(client, 'reasond:engine_ends_total{cause="died",engine="demo"}') == 1
        server.may_start.set()
        async with asyncio.timeout(5):
            while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


@pytest.mark.anyio
async def test_a_request_that_has_sent_nothing_waits_and_one_that_has_ends_with_the_error_event(tokenizer):
    server = Server(tokenizer, wait_seconds=5)
    async with server.client() as client:
        begun = asyncio.create_task(client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
        async with asyncio.timeout(5):
            while not server.started["demo"][0].running():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)  # some tokens
        await server.kill()
        waiting = await client.post("/v1/chat/completions", json=CHAT)
        assert waiting.status_code == 200
        *_, error, done = [line for line in (await begun).text.splitlines() if line]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_dead"
        assert done == "data: [DONE]"


@pytest.mark.anyio
async def test_an_engine_that_is_lost_fails_the_health_check(tokenizer):
    server = Server(tokenizer, restarts=0)
    async with server.client() as client:
        await server.kill()
        health = await client.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "engine lost", "engines": ["demo"]})
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["engines"]) == (503, {"demo": "lost"})
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")


@pytest.mark.anyio
async def test_a_lost_target_leaves_the_small_model_alone_and_the_server_in_health(tokenizer):
    server = Server(tokenizer, PAIR, restarts=0)
    async with server.client() as client:
        await server.kill("large")
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).json() == {"status": "ready", "degraded": ["demo"]}
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["choices"][0]["finish_reason"]) == (200, "stop")


@pytest.mark.anyio
async def test_engines_of_this_process_are_supervised_and_a_mere_helper_is_not_waited_for():
    async with AsyncExitStack() as stack:
        engines = await start_engines(parse_config(PAIR, ROOT), stack)
        assert all(isinstance(engine, SupervisedEngine) for engine in engines.values())
        assert {name: engine._settings.wait_seconds for name, engine in engines.items()} == {"demo": 120, "large": 0}


def test_a_server_that_has_lost_an_engine_ends_with_a_status_of_its_own(tokenizer):
    async def served() -> int:
        server = Server(tokenizer, f"[server]\nport = {free_port()}\ndrain_seconds = 1\n{ENGINE_AND_ROUTE}", restarts=0)
        async with server.client():
            app = create_app(server.config, server.engines)
            serving = asyncio.create_task(_serve_app(server.config, app, asyncio.Event(), sys.stdout))
            await asyncio.sleep(0.3)
            assert not serving.done()
            await server.started["demo"][0].kill()
            return await asyncio.wait_for(serving, 10)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(served()) == 4
