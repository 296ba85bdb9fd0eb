"""The end of a server, in steps: notice, drain, cut. Whoever is cut off is told so, and counted by cause."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from models.engines.scripted import ScriptedEngine
from server.app import create_app
from server.config.load import parse_config
from server.serve import DrainingServer, build_server
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.running import running, wait_until_ready

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}], "max_tokens": 1000}


def slow_server(tokenizer, **settings: float) -> DrainingServer:
    """A server whose replies take 25 seconds."""
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    config = parse_config(f"[server]\nport = 0\n{lines}{ENGINE_AND_ROUTE}", ROOT)
    engine = ScriptedEngine(tokenizer, ["<no_think>" + "5 " * 500], name="demo", token_delay=0.05)
    return build_server(config, create_app(config, {"demo": engine}))


def aborts(server: DrainingServer, cause: str) -> float | None:
    registry = server.runtime.metrics.registry
    return registry.get_sample_value("reasond:request_aborts_total", {"route": "demo", "cause": cause})


@pytest.mark.anyio
async def test_a_stream_that_the_drain_cuts_ends_with_an_error_event_and_no_traceback(tokenizer, caplog):
    server = slow_server(tokenizer, drain_seconds=0.3)
    lines: list[str] = []
    async with (
        running(server) as address,
        httpx.AsyncClient(base_url=address) as client,
        client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            server.should_exit = True
    *_, error, done = [line for line in lines if line]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert done == "data: [DONE]"
    assert (aborts(server, "shutdown"), aborts(server, "client")) == (1, 0)
    assert not [record for record in caplog.records if record.exc_info or "Exception" in record.getMessage()]


@pytest.mark.anyio
async def test_an_answer_that_the_drain_cuts_before_its_first_byte_is_a_503(tokenizer, caplog):
    server = slow_server(tokenizer, drain_seconds=0.3)
    async with running(server) as address, httpx.AsyncClient(base_url=address, timeout=20) as client:
        asked = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        while not server.runtime.engines["demo"].running():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        server.should_exit = True
        answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_stopping")
    assert answer.headers["x-request-id"]
    assert aborts(server, "shutdown") == 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.anyio
async def test_a_client_that_leaves_while_the_server_drains_is_still_a_client_that_left(tokenizer):
    server = slow_server(tokenizer, drain_seconds=20)
    async with (
        running(server) as address,
        httpx.AsyncClient(base_url=address) as client,
        client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer,
    ):
        await anext(answer.aiter_lines())
        server.should_exit = True
        await server.runtime.draining.wait()
    assert (aborts(server, "client"), aborts(server, "shutdown")) == (1, 0)


@pytest.mark.anyio
async def test_a_notice_tells_balancers_while_requests_are_still_taken(tokenizer):
    server = slow_server(tokenizer, drain_seconds=1, notice_seconds=1.0)
    async with running(server) as address, httpx.AsyncClient(base_url=address) as client:
        server.should_exit = True
        await server.runtime.draining.wait()
        async with httpx.AsyncClient(base_url=address) as late:
            answer = await late.get("/ready")
            assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
            short = {**CHAT, "max_tokens": 2}
            assert (await late.post("/v1/chat/completions", json=short)).status_code == 200
        assert (await client.get("/health")).status_code == 200


def test_sigterm_lets_a_stream_end_while_newcomers_find_the_port_closed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = f"[server]\nport = {port}\ndrain_seconds = 60\n" + ENGINE_AND_ROUTE.replace(
        'replies = ["<no_think>5</no_think>"]', "length = 60\ntoken_delay = 0.05"
    )
    (tmp_path / "settings.toml").write_text(settings)
    command = [sys.executable, "-m", "server.cli", "serve", str(tmp_path / "settings.toml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(f"{url}/ready", process)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            refused = False
            said = []
            for line in lines:
                said.append(line)
                refused = refused or is_refused(port)
        _, logged = process.communicate(timeout=20)
    finally:
        process.kill()
    assert refused
    *_, last, done = [line for line in said if line]
    assert json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] in ("stop", "length")
    assert done == "data: [DONE]"
    assert process.returncode == 0, logged


def is_refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return False
    except ConnectionRefusedError:
        return True


def test_a_second_signal_ends_the_drain_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = f"[server]\nport = {port}\ndrain_seconds = 600\nnotice_seconds = 600\n" + ENGINE_AND_ROUTE.replace(
        'replies = ["<no_think>5</no_think>"]', "length = 3000\ntoken_delay = 0.05"
    )
    (tmp_path / "settings.toml").write_text(settings)
    command = [sys.executable, "-m", "server.cli", "serve", str(tmp_path / "settings.toml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/ready", process)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            next(lines)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert "server_stopping" in "".join(lines)
        _, logged = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, logged
    assert "Traceback" not in logged
