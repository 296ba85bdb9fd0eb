"""Several processes over one vLLM engine are one server, whichever of them dies, the engine included."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.chaos.clients import Clients, chat, client, metric
from tests.chaos.engines import victims
from tests.processes import ENVIRONMENT, ROOT, members, reasond
from tests.server.test_processes import until

COUNT = 2
SETTINGS = f"""
[server]
processes = {COUNT}
drain_seconds = 5
[engines.demo]
kind = "vllm"
model = "{ROOT / "demo" / "hybrid"}"
args = {{ max_model_len = 2048, block_size = 32, kv_cache_memory_bytes = 134217728, enforce_eager = true }}
[routes.demo]
engine = "demo"
family = "lhrm"
mode = "think"
loop = {{ enabled = false }}
"""
LONG = {"max_tokens": 1500, "ignore_eos": True}
pytestmark = [pytest.mark.accept, pytest.mark.e2e]
NO_KEPT_CONNECTIONS = httpx.Limits(max_keepalive_connections=0)  # each request meets whichever process


def test_several_processes_share_an_engine_and_outlive_its_death_and_each_others(tmp_path: Path) -> None:
    settings, log = tmp_path / "settings.toml", tmp_path / "log"
    settings.write_text(SETTINGS)
    with reasond(settings, log=log) as (url, process):
        asyncio.run(_one_server(url))
        asyncio.run(_dying(url, process.pid, log))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    assert not members(process.pid)


def test_no_process_outlives_the_one_that_watches_not_even_an_engine_that_is_being_started(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    command = [sys.executable, "-m", "server.cli", "serve", str(settings), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT, start_new_session=True) as process:
        until(lambda: len(members(process.pid)) > COUNT + 2 and bool(victims(process.pid, "kill")))
        process.kill()
    until(lambda: not members(process.pid), 5)


async def _one_server(url: str) -> None:
    """Responses, answer-now, and sums over the processes."""
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=NO_KEPT_CONNECTIONS) as http:

        async def background(number: int) -> None:
            body = {"model": "demo", "input": "compute 3 + 4", "background": True, "max_output_tokens": 1500}
            made = (await http.post("/v1/responses", json=body)).json()
            assert (await http.post(f"/v1/responses/{made['id']}/cancel")).status_code == 200
            assert (await http.get(f"/v1/responses/{made['id']}")).status_code == 200

        async def hurried(number: int) -> None:
            headers, seen = {"x-request-id": f"hurried-{number}"}, 0
            body = chat("demo", stream=True, **LONG)
            async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    seen += line.startswith("data: ")
                    if seen % 20 == 0:  # again, where the other process was too busy to hear of it in time
                        await http.post(f"/v1/reasoning/hurried-{number}/cancel")
            assert seen < 1000

        await asyncio.gather(*map(background, range(8)), *map(hurried, range(8)))
        assert await metric(http, url, "reasond:requests_total") == 16
        assert await metric(http, url, "reasond:engine_up") == 1


async def _dying(url: str, server: int, log: Path) -> None:
    """A front end's death costs its own streams alone. The core's death is mended for all."""
    clients = Clients(url, [chat("demo", **LONG)])
    front_ends = sorted(members(server))  # the watcher is the first, the keeper of the engine the second
    async with clients.busy(16):
        await _streaming(clients, 16)
        os.kill(front_ends[2], signal.SIGKILL)
        await _streaming(clients, 16)
        await asyncio.to_thread(until, lambda: "another is started" in log.read_text())
    ends = clients.counts()
    assert 0 < sum(count for end, count in ends.items() if end.startswith("cut")) < 16, ends
    assert not any(end.startswith(("error", "hung")) for end in ends), ends
    (core,) = victims(server, "kill")
    clients = Clients(url, [chat("demo", **LONG)])
    async with clients.busy(16):
        await _streaming(clients, 16)
        os.kill(core, signal.SIGKILL)
        await asyncio.sleep(1)
        await _streaming(clients, 16)
    ends = clients.counts()
    assert ends["error event engine_dead"] == 16 and set(ends) == {"whole", "error event engine_dead"}, ends
    async with client() as http:
        assert await metric(http, url, "reasond:engine_ends_total") == 1


async def _streaming(clients: Clients, count: int) -> None:
    async with asyncio.timeout(300):
        while clients.streaming < count:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
