"""A real server on the loopback: it answers, and it drains before it stops."""

import asyncio
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
from starlette.responses import Response, StreamingResponse

from server.config.load import Config, ConfigError, parse_config
from server.edges.endpoints import Routes
from server.observability.metrics import LAGS
from server.serve import (
    SIGNALS,
    DrainingServer,
    _serve_app,
    build_server,
    require_free_port,
    stop_signals,
    unless_stopped,
)
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.running import running, wait_until_ready


def config(drain_seconds: int) -> Config:
    return parse_config(f"[server]\nport = 0\ndrain_seconds = {drain_seconds}\n{ENGINE_AND_ROUTE}", ROOT)


def with_slow_stream(app, ended: list[str]):
    routes = Routes()

    @routes.get("/slow")
    async def slow(request):
        async def stream() -> AsyncGenerator[bytes, None]:
            try:
                for _ in range(int(request.query_params["pieces"])):
                    yield b"x"
                    await asyncio.sleep(0.05)
                ended.append("whole")
            finally:
                ended.append("closed")

        return StreamingResponse(stream())

    app.router.routes += routes
    return app


@pytest.mark.anyio
async def test_a_stop_lets_running_requests_finish_and_accepts_no_new_ones(make_app):
    ended: list[str] = []
    app = with_slow_stream(make_app(), ended)
    server = build_server(config(drain_seconds=20), app)
    async with (
        running(server) as address,
        httpx.AsyncClient(base_url=address) as client,
        client.stream("GET", "/slow", params={"pieces": 20}) as answer,
    ):
        body = answer.aiter_bytes()
        await anext(body)
        server.should_exit = True
        await app.state.runtime.draining.wait()
        async with httpx.AsyncClient(base_url=address) as late:
            with pytest.raises(httpx.ConnectError):
                await late.get("/health")
        assert ended == []
        assert len(b"".join([piece async for piece in body])) == 19
    assert ended == ["whole", "closed"]


@pytest.mark.anyio
async def test_a_request_that_outlives_the_drain_is_closed(make_app):
    ended: list[str] = []
    server = build_server(config(drain_seconds=1), with_slow_stream(make_app(), ended))
    async with running(server) as address, httpx.AsyncClient(base_url=address) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("GET", "/slow", params={"pieces": 10_000}) as answer:
                async for _ in answer.aiter_bytes():
                    server.should_exit = True
    assert ended == ["closed"]


@pytest.mark.anyio
async def test_an_oversized_upload_over_a_real_socket_is_answered_and_the_server_lives_on(make_app):
    server = build_server(config(drain_seconds=1), make_app(extra="[server]\nmax_body_bytes = 1000\n"))
    async with running(server) as address, httpx.AsyncClient(base_url=address) as client:
        answer = await client.post("/v1/chat/completions", content=b"x" * 1_000_000)
        assert answer.status_code == 413
        assert (await client.get("/v1/models")).status_code == 200


def test_a_port_that_is_taken_is_told_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server\.port: .*:{port}"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_leaves_with_success(tmp_path, number):
    (tmp_path / "settings.toml").write_text('[logging]\nformat = "json"\nrequests = true\n' + ENGINE_AND_ROUTE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "server.cli", "serve", str(tmp_path / "settings.toml"), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/ready", process)
        process.send_signal(number)
        _, logged = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, logged
    lines = [json.loads(line) for line in logged.splitlines()]
    assert any("no API keys are configured" in line["message"] for line in lines)
    assert {line["level"] for line in lines} <= {"info", "warning"}


@pytest.mark.anyio
async def test_a_signal_while_engines_are_loading_stops_the_loading():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await unless_stopped(asyncio.sleep(60), stop_signals())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.anyio
async def test_while_the_server_runs_the_collector_leaves_alone_what_libraries_made(make_app, monkeypatch):
    frozen: list[int] = []

    async def served(self: DrainingServer, sockets: object = None) -> None:
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr(DrainingServer, "serve", served)
    app = make_app()
    await _serve_app(app.state.runtime.config, app, asyncio.Event(), sys.stdout)
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.anyio
async def test_a_signal_between_the_load_and_the_open_port_is_not_lost(make_app):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        app, stop = make_app(extra="[server]\nport = 0\n"), stop_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await _serve_app(app.state.runtime.config, app, stop, sys.stdout) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (ENGINE_AND_ROUTE.replace("demo/tokenizer", "demo"), r"^engines\.demo: .+$"),
        (ENGINE_AND_ROUTE.replace("lhrm", "deepseek_r1"), r"^routes\.demo\.family: .*</think>.*$"),
    ],
)
def test_an_engine_that_cannot_start_is_one_clean_line(tmp_path, settings, told):
    (tmp_path / "settings.toml").write_text(settings)
    command = [sys.executable, "-m", "server.cli", "serve", str(tmp_path / "settings.toml"), "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert re.search(told, ended.stderr.splitlines()[-1]), ended.stderr


@pytest.mark.anyio
async def test_what_holds_up_the_event_loop_is_seen_in_the_metrics(make_app):
    app, routes = make_app(), Routes()

    @routes.get("/block")
    async def block(request):
        time.sleep(0.6)  # noqa: ASYNC251 - on purpose
        return Response()

    app.router.routes += routes
    async with running(build_server(config(drain_seconds=1), app)) as address, httpx.AsyncClient() as client:

        def late(text: str) -> int:
            """How often the loop was late by more than half a second."""
            buckets = [line for line in text.splitlines() if line.startswith("reasond:event_loop_lag_seconds_bucket")]
            counts = [float(line.split()[-1]) for line in buckets]
            return int(counts[-1] - counts[LAGS.index(0.5)])

        before = late((await client.get(f"{address}/metrics")).text)
        await client.get(f"{address}/block")
        await asyncio.sleep(0.3)
        assert late((await client.get(f"{address}/metrics")).text) > before
