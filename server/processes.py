"""Several processes on one port: each has an event loop of its own, and its share of the limits.

The kernel spreads connections over them. What one runs, another finds through the store. An engine that they share has
a process of its own, its keeper. A process that dies is started again; when this one, which watches them, is gone, so
are they.
"""

import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from threading import Thread
from typing import Any

from pydantic import SecretBytes

from models.engines import EngineConfig, KeptVllmEngineConfig, VllmEngineConfig
from server.config.load import Config, ConfigError
from server.config.routes import RouteConfig

log = logging.getLogger(__name__)

LOST = 4  # the exit status of a server that cannot go on
MOST_DEATHS = 5  # within `SETTLED_SECONDS`; then the server gives up
SETTLED_SECONDS = 300.0
MOST_TOLD = 1 << 16  # bytes of a fault
REST_SECONDS = 1.0  # before a process is started again


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """One of the processes: what it listens on, its own socket for the others, and theirs."""

    listener: socket.socket
    own: Path
    others: tuple[Path, ...]

    @property
    def first(self) -> bool:
        return all(self.own < other for other in self.others)

    def sockets(self) -> list[socket.socket]:
        self.own.unlink(missing_ok=True)  # of one that died
        inside = socket.socket(socket.AF_UNIX)
        inside.bind(str(self.own))
        return [self.listener, inside]


@dataclass(frozen=True, slots=True)
class KeeperProcess:
    """The process that runs an engine for the others, who connect to its `listener`. That stays open however often the
    process is started again."""

    engine: str
    listener: socket.socket


def serve_together(
    config: Config, run: Callable[[Config, FrontEnd], int], keep: Callable[[Config, KeeperProcess], int]
) -> int:
    """Runs `config.server.processes` times `run`, and `keep` for each engine that they share, until a stop signal.
    Returns the worst of their exit statuses; raises the first `ConfigError` that one of them has raised."""
    with tempfile.TemporaryDirectory(prefix="reasond-") as folder, _bound(config) as reserved:
        port = reserved.getsockname()[1]
        return _Watch(_shared(config, Path(folder), port), Path(folder), run, keep).until_all_have_ended()


class _Watch:
    """The processes by id, with what each runs. Keepers end when nobody is left to need them."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        run: Callable[[Config, FrontEnd], int],
        keep: Callable[[Config, KeeperProcess], int],
    ) -> None:
        self._config = config
        self._run = run
        self._keep = keep
        self._sockets = [folder / f"{number}.sock" for number in range(config.server.processes)]
        self._listeners = {
            name: _listener_at(engine.keeper)
            for name, engine in config.engines.items()
            if isinstance(engine, KeptVllmEngineConfig)
        }
        self._running: dict[int, int | str] = {}
        self._deaths: list[float] = []
        self._status = 0
        self._stopping = False
        self._reading, self._writing = os.pipe()
        self._faults, self._fault_told = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def until_all_have_ended(self) -> int:
        server = self._config.server
        log.info("%d processes listen on http://%s:%d", server.processes, server.host, server.port)
        for name in (*self._listeners, *range(server.processes)):
            self._start(name)
        while self._running:
            process, status = os.waitpid(-1, 0)
            name = self._running.pop(process)
            self._ended(name, os.waitstatus_to_exitcode(status))
            if not self._front_ends():
                self._tell(signal.SIGTERM, self._running)
        os.close(self._fault_told)
        if told := os.read(self._faults, MOST_TOLD):
            raise ConfigError(told.partition(b"\0")[0].decode())
        return self._status

    def _front_ends(self) -> list[int]:
        return [process for process, name in self._running.items() if name not in self._listeners]

    def _ended(self, name: int | str, status: int) -> None:
        if self._stopping:
            self._status = max(self._status, abs(status))
            return
        self._deaths = [*(at for at in self._deaths if at > time.monotonic() - SETTLED_SECONDS), time.monotonic()]
        if status > 0 or len(self._deaths) > MOST_DEATHS:  # it has told why it cannot go on
            self._status = status if status > 0 else LOST
            self._stop(signal.SIGTERM)
            return
        log.error("process %s of the server ended with status %d: another is started", name, status)
        time.sleep(REST_SECONDS)
        if not self._stopping:
            self._start(name)

    def _start(self, name: int | str) -> None:
        if process := os.fork():
            self._running[process] = name
            return
        status = LOST
        try:
            status = self._become(name)
        except ConfigError as error:
            os.write(self._fault_told, f"{error}\0".encode())  # all of them may find the same
        except Exception:
            log.exception("process %s of the server failed", name)
        finally:
            logging.shutdown()
            os._exit(status)  # what this process tidies up at its end is the watcher's

    def _become(self, name: int | str) -> int:
        os.setpgid(0, 0)  # a terminal's Ctrl+C is for the watcher, which hands it on
        os.close(self._writing)
        for signalled in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signalled, signal.SIG_DFL)
        Thread(target=_end_with, args=(self._reading,), daemon=True).start()
        if isinstance(name, str):
            return self._keep(self._config, KeeperProcess(name, self._listeners[name]))
        own, others = self._sockets[name], (*self._sockets[:name], *self._sockets[name + 1 :])
        with _bound(self._config) as listener:
            return self._run(self._config, FrontEnd(listener, own, others))

    def _stop(self, number: int, frame: Any = None) -> None:
        self._stopping = True
        self._tell(signal.SIGTERM, self._front_ends())

    def _reload(self, number: int, frame: Any = None) -> None:
        self._tell(number, self._front_ends())

    def _tell(self, number: int, processes: Iterable[int]) -> None:
        for process in processes:
            os.kill(process, number)


def _end_with(watcher: int) -> None:
    """Ends this process when the one that watches is gone, whatever this one does."""
    os.read(watcher, 1)
    os._exit(LOST)


def _listener_at(keeper: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(keeper)
    listener.listen()
    return listener


def _bound(config: Config) -> socket.socket:
    """A socket at the server's address, beside those of the other processes. As long as it does not listen it gets no
    connection."""
    host, port = config.server.host, config.server.port
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


def _shared(config: Config, folder: Path, port: int) -> Config:
    """What all processes have in common: the store, the key of sealed thoughts, and the engines of this machine. Each
    has its share of the limits."""
    server, count = config.server, config.server.processes
    inherited: dict[str, Any] = {"port": port}
    if not server.store and not os.environ.get(server.store_env):
        inherited["store"] = f"sqlite:{folder / 'responses.db'}"
    if not server.seal_key.get_secret_value():
        inherited["seal_key"] = SecretBytes(token_bytes(32))
    routes = {name: _with_share(route, count) for name, route in config.routes.items()}
    keys = {
        name: key.model_copy(
            update={
                "max_requests": math.ceil(key.max_requests / count),
                "tokens_per_minute": math.ceil(key.tokens_per_minute / count),
            }
        )
        for name, key in config.keys.items()
    }
    engines = {
        name: _kept(engine, folder / f"engine-{number}.sock")
        for number, (name, engine) in enumerate(config.engines.items())
    }
    shared = {"server": server.model_copy(update=inherited), "routes": routes, "keys": keys, "engines": engines}
    return config.model_copy(update=shared)


def _kept(engine: EngineConfig, keeper: Path) -> EngineConfig:
    if not isinstance(engine, VllmEngineConfig):
        return engine
    return KeptVllmEngineConfig.model_construct(**dict(engine), keeper=str(keeper))


def _with_share(route: RouteConfig, count: int) -> RouteConfig:
    limits = route.admission
    share = {name: math.ceil(getattr(limits, name) / count) for name in ("running_tokens", "queue_tokens")}
    return route.model_copy(update={"admission": limits.model_copy(update=share)})
