"""Runs the application, and stops it kindly: a notice, no new connections, a time to drain, then the engines close."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack, suppress
from types import FrameType
from typing import TextIO, TypeVar

import uvicorn
import uvloop

from models.engines import VllmEngineConfig, keep
from models.engines.base import Engine
from models.engines.supervised import SupervisedEngine
from server.app import Application, create_app
from server.config.load import Config, ConfigError
from server.edges.auth import load_keys
from server.edges.connection import bounded_http
from server.edges.request_scope import Observer
from server.engines import START_ERRORS, reason_of, start_engines, thinking_tags
from server.families import detect_families
from server.fingerprint import check_calibrations
from server.observability import logs
from server.observability.foreign import ForeignOutput, diverted
from server.observability.tracing import start_tracing
from server.processes import LOST, FrontEnd, KeeperProcess, serve_together
from server.ready import ready_lines
from server.stores import open_responses

T = TypeVar("T")
log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep an idle connection, so that they and not we close it
NOT_STARTED = 3  # the exit status where the port could not be had
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain in steps: `/ready` says so, the listener closes, what is left is cut off with an error.

    A second stop signal cuts at once.
    """

    def __init__(self, config: uvicorn.Config, app: Application, out: TextIO | None = None) -> None:
        super().__init__(config)
        self.runtime = app.state.runtime
        self.out = out  # where it says that it is ready
        self.lost = False  # whether it stops because an engine is lost

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.runtime.metrics.watch_loop(asyncio.get_running_loop())
        await super().startup(sockets)
        if self.out is not None and self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(*ready_lines(self.runtime, host, port), sep="\n", file=self.out, flush=True)

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


def build_server(config: Config, app: Application, out: TextIO | None = None) -> DrainingServer:
    """A server that is ready to run, and says so on `out`."""
    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        loop="uvloop",
        http=bounded_http(config.server),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # What is cut off still writes its last event; uvicorn's own way of ending requests comes only after that.
        timeout_graceful_shutdown=math.ceil(config.server.drain_seconds) + 1,
    )
    return DrainingServer(settings, app, out)


def serve(config: Config) -> int:
    """Serves until a stop signal. Returns the process's exit status; raises `ConfigError` where it cannot start."""
    require_free_port(config.server.host, config.server.port)
    load_keys(config.server.keys_file, os.environ)
    if config.server.processes == 1:
        return run(config)
    logs.configure(config.logging)
    return serve_together(config, run, keep_engine)


def keep_engine(config: Config, keeping: KeeperProcess) -> int:
    """Runs an engine that several front ends share, until SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    with diverted() as foreign, suppress(SystemExit):
        logs.configure(config.logging, foreign.err)
        config = detect_families(config)
        engine = config.engines[keeping.engine]
        assert isinstance(engine, VllmEngineConfig)
        tags = thinking_tags(config, keeping.engine)
        try:
            keep(engine, tags, keeping.listener, config.server.processes, foreign.started, foreign.cause)
        except START_ERRORS as error:
            raise ConfigError(f"engines.{keeping.engine}: {reason_of(error)}") from error
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit()


def run(config: Config, place: FrontEnd | None = None) -> int:
    """`serve`, in this process. `place` is there for one of several."""
    with diverted() as foreign, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        logs.configure(config.logging, foreign.err)
        return runner.run(_serve(config, foreign, place))


async def _serve(config: Config, foreign: ForeignOutput, place: FrontEnd | None) -> int:
    asyncio.get_running_loop().set_exception_handler(logs.report_loop_error)
    stop = stop_signals()
    async with AsyncExitStack() as stack:
        observers: list[Observer] = [logs.log_request] if config.logging.requests else []
        if config.tracing.endpoint:
            observers.append(start_tracing(config.tracing, stack))
        try:
            config = detect_families(config)
            check_calibrations(config)
            engines = await unless_stopped(start_engines(config, stack, foreign.cause), stop)
        except asyncio.CancelledError:
            log.info("stopped before the engines were up")
            return 0
        responses = open_responses(config)
        stack.push_async_callback(responses.close)
        app = create_app(config, engines, observers, responses)
        sharing = asyncio.create_task(responses.run(app.state.runtime.running.ask))
        stack.callback(sharing.cancel)
        stack.push_async_callback(responses.flush)
        foreign.started()
        return await _serve_app(config, app, stop, foreign.out, place)
    raise AssertionError("the stack swallows no exception")


async def _serve_app(
    config: Config, app: Application, stop: asyncio.Event, out: TextIO, place: FrontEnd | None = None
) -> int:
    """The exit status: 0 after a stop signal, 3 where the port could not be had, 4 where an engine is lost. `stop` is
    set where a signal came before uvicorn listened to them."""
    server = build_server(config, app, out if place is None or place.first else None)
    gc.collect()
    gc.freeze()  # a collection over the libraries' objects would hold every stream up for a third of a second
    if config.server.keys_file:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.state.keys.reload)
    engines = app.state.runtime.engines
    losing = asyncio.create_task(_stop_when_lost(server, [engines[name] for name in config.needed_engines]))
    stopping = asyncio.create_task(_stop_when_told(server, stop))
    try:
        if place is not None:
            app.state.siblings = place.others
        await server.serve(None if place is None else place.sockets())
        return LOST if server.lost else 0 if server.started else NOT_STARTED
    finally:
        gc.unfreeze()  # at the end of the process libraries look for what is still there
        losing.cancel()
        stopping.cancel()
        for number in SIGNALS:  # uvicorn has raised what it caught once more, and from here on all ends anyway
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def _stop_when_told(server: DrainingServer, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


async def _stop_when_lost(server: DrainingServer, engines: Iterable[Engine]) -> None:
    """Drains and stops the server when an engine of this process cannot be started any more: another process may."""
    losses = [asyncio.create_task(engine.lost.wait()) for engine in engines if isinstance(engine, SupervisedEngine)]
    if losses:
        await asyncio.wait(losses, return_when=asyncio.FIRST_COMPLETED)
        server.lost = server.should_exit = True


def stop_signals() -> asyncio.Event:
    """Set by a stop signal, from now on. While uvicorn runs it handles them itself."""
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def unless_stopped(work: Awaitable[T], stop: asyncio.Event) -> T:
    """The result of `work`, which is cancelled when `stop` is set."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        working.cancel()
    stopping.cancel()
    return await working


def require_free_port(host: str, port: int) -> None:
    """Raises `ConfigError` where the address cannot be had: said now, not after minutes of loading models.

    The socket is not kept: engines may fork, and a forked engine that holds it would keep the port open while we drain.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}") from error
