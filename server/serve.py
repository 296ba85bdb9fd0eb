"""Runs the application, and stops it kindly: a notice, no new connections, a time to drain, then the engines close."""

import asyncio
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from types import FrameType
from typing import TypeVar

import uvicorn
import uvloop

from models.engines.base import Engine
from models.engines.supervised import SupervisedEngine
from server.app import Application, create_app
from server.config.load import Config, ConfigError
from server.edges.auth import load_keys
from server.edges.request_scope import Observer
from server.engines import start_engines
from server.families import detect_families
from server.fingerprint import check_calibrations
from server.observability import logs
from server.observability.tracing import start_tracing
from server.stores import open_responses

T = TypeVar("T")
log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep an idle connection, so that they and not we close it
NOT_STARTED, LOST = 3, 4  # exit statuses
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain in steps: `/ready` says so, the listener closes, what is left is cut off with an error.

    A second stop signal cuts at once.
    """

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self.runtime = app.state.runtime
        self.lost = False  # whether it stops because an engine is lost

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.runtime.metrics.watch_loop(asyncio.get_running_loop())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        settings = self.runtime.config.server
        self.runtime.draining.set()
        if settings.notice_seconds:
            await _soon(self.runtime.cut.wait(), settings.notice_seconds)
        self.runtime.closing.set()
        cutting = asyncio.create_task(self._cut_after(settings.drain_seconds))
        try:
            await super().shutdown(sockets)
            if self.runtime.background:
                await asyncio.wait(self.runtime.background)
        finally:
            cutting.cancel()

    async def _cut_after(self, seconds: float) -> None:
        await _soon(self.runtime.cut.wait(), seconds)
        self.runtime.cut.set()
        if left := [*self.server_state.tasks, *self.runtime.background]:
            log.warning("cutting off %d requests that outlived the drain", len(left))
        for task in left:
            task.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.runtime.cut.set()  # seen by a waiter within its timer's tick: a signal does not wake the loop
        super().handle_exit(signal.SIGTERM, frame)  # uvicorn's answer to a second SIGINT leaves requests unanswered


async def _soon(event: Awaitable[object], seconds: float) -> None:
    """Waits for the event, at most this long."""
    try:
        await asyncio.wait_for(event, seconds)
    except TimeoutError:
        return


def build_server(config: Config, app: Application) -> DrainingServer:
    """A server that is ready to run."""
    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # What is cut off still writes its last event; uvicorn's own way of ending requests comes only after that.
        timeout_graceful_shutdown=math.ceil(config.server.drain_seconds) + 1,
    )
    return DrainingServer(settings, app)


def serve(config: Config) -> int:
    """Serves until a stop signal. Returns the process's exit status; raises `ConfigError` where it cannot start."""
    logs.configure(config.logging)
    require_free_port(config.server.host, config.server.port)
    load_keys(config.server.keys_file, os.environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> int:
    asyncio.get_running_loop().set_exception_handler(logs.report_loop_error)
    async with AsyncExitStack() as stack:
        observers: list[Observer] = [logs.log_request] if config.logging.requests else []
        if config.tracing.endpoint:
            observers.append(start_tracing(config.tracing, stack))
        try:
            config = detect_families(config)
            check_calibrations(config)
            engines = await unless_stopped(start_engines(config, stack))
        except asyncio.CancelledError:
            log.info("stopped before the engines were up")
            return 0
        responses = open_responses(config)
        stack.push_async_callback(responses.close)
        app = create_app(config, engines, observers, responses)
        sharing = asyncio.create_task(responses.run(app.state.runtime.running.ask))
        stack.callback(sharing.cancel)
        stack.push_async_callback(responses.flush)
        return await _serve_app(config, app)
    raise AssertionError("the stack swallows no exception")


async def _serve_app(config: Config, app: Application) -> int:
    """The exit status: 0 after a stop signal, 3 where the port could not be had, 4 where an engine is lost."""
    server = build_server(config, app)
    engines = app.state.runtime.engines
    losing = asyncio.create_task(_stop_when_lost(server, [engines[name] for name in config.needed_engines]))
    try:
        await server.serve()
        return LOST if server.lost else 0 if server.started else NOT_STARTED
    finally:
        losing.cancel()


async def _stop_when_lost(server: DrainingServer, engines: Iterable[Engine]) -> None:
    """Drains and stops the server when an engine of this process cannot be started any more: another process may."""
    losses = [asyncio.create_task(engine.lost.wait()) for engine in engines if isinstance(engine, SupervisedEngine)]
    if losses:
        await asyncio.wait(losses, return_when=asyncio.FIRST_COMPLETED)
        server.lost = server.should_exit = True


async def unless_stopped(work: Awaitable[T]) -> T:
    """The result of `work`. A stop signal cancels it."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    for number in SIGNALS:
        loop.add_signal_handler(number, working.cancel)
    try:
        return await working
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            # uvicorn handles these while it runs, and raises what it caught once more at its end: then all is done.
            signal.signal(number, signal.SIG_IGN)


def require_free_port(host: str, port: int) -> None:
    """Raises `ConfigError` where the address cannot be had: said now, not after minutes of loading models.

    The socket is not kept: engines may fork, and a forked engine that holds it would keep the port open while we drain.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}") from error
