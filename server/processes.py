"""Several processes on one port: each has an event loop of its own, and its share of the limits.

The kernel spreads connections over them. What one runs, another finds through the store. A process that dies is started
again; when this one, which watches them, is gone, so are they.
"""

import asyncio
import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Any

from pydantic import SecretBytes

from server.config.load import Config
from server.config.routes import RouteConfig

log = logging.getLogger(__name__)

LOST = 4  # the exit status of a server that cannot go on
MOST_DEATHS = 5  # within `SETTLED_SECONDS`; then the server gives up
SETTLED_SECONDS = 300.0
REST_SECONDS = 1.0  # before a process is started again


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """One of the processes: what it listens on, its own socket for the others, and theirs. `watcher` is at its end when
    the process that watches is gone."""

    listener: socket.socket
    own: Path
    others: tuple[Path, ...]
    watcher: int

    @property
    def first(self) -> bool:
        return all(self.own < other for other in self.others)

    def sockets(self) -> list[socket.socket]:
        """To be called inside the event loop that they live in."""
        self.own.unlink(missing_ok=True)  # of one that died
        inside = socket.socket(socket.AF_UNIX)
        inside.bind(str(self.own))
        asyncio.get_running_loop().add_reader(self.watcher, os._exit, LOST)
        return [self.listener, inside]


def serve_together(config: Config, run: Callable[[Config, FrontEnd], int]) -> int:
    """Runs `config.server.processes` times `run`, until a stop signal. Returns the worst of their exit statuses."""
    with tempfile.TemporaryDirectory(prefix="reasond-") as folder, _bound(config) as reserved:
        port = reserved.getsockname()[1]
        return _Watch(_shared(config, Path(folder), port), Path(folder), run).until_all_have_ended()


class _Watch:
    """The processes by id, with the number of each."""

    def __init__(self, config: Config, folder: Path, run: Callable[[Config, FrontEnd], int]) -> None:
        self._config = config
        self._run = run
        self._sockets = [folder / f"{number}.sock" for number in range(config.server.processes)]
        self._running: dict[int, int] = {}
        self._deaths: list[float] = []
        self._status = 0
        self._stopping = False
        self._reading, self._writing = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._tell)

    def until_all_have_ended(self) -> int:
        server = self._config.server
        log.info("%d processes listen on http://%s:%d", server.processes, server.host, server.port)
        for number in range(server.processes):
            self._start(number)
        while self._running:
            process, status = os.waitpid(-1, 0)
            number = self._running.pop(process)
            self._ended(number, os.waitstatus_to_exitcode(status))
        return self._status

    def _ended(self, number: int, status: int) -> None:
        if self._stopping:
            self._status = max(self._status, abs(status))
            return
        self._deaths = [*(at for at in self._deaths if at > time.monotonic() - SETTLED_SECONDS), time.monotonic()]
        if status > 0 or len(self._deaths) > MOST_DEATHS:  # it has told why it cannot go on
            self._status = status if status > 0 else LOST
            self._stop(signal.SIGTERM)
            return
        log.error("process %d of the server ended with status %d: another is started", number, status)
        time.sleep(REST_SECONDS)
        if not self._stopping:
            self._start(number)

    def _start(self, number: int) -> None:
        if process := os.fork():
            self._running[process] = number
            return
        status = LOST
        try:
            status = self._become(number)
        finally:
            logging.shutdown()
            os._exit(status)  # what this process tidies up at its end is the watcher's

    def _become(self, number: int) -> int:
        os.setpgid(0, 0)  # a terminal's Ctrl+C is for the watcher, which hands it on
        os.close(self._writing)
        for signalled in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signalled, signal.SIG_DFL)
        own, others = self._sockets[number], (*self._sockets[:number], *self._sockets[number + 1 :])
        with _bound(self._config) as listener:
            return self._run(self._config, FrontEnd(listener, own, others, self._reading))

    def _stop(self, number: int, frame: Any = None) -> None:
        self._stopping = True
        self._tell(signal.SIGTERM)

    def _tell(self, number: int, frame: Any = None) -> None:
        for process in self._running:
            os.kill(process, number)


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
    """What all processes have in common: the store and the key of sealed thoughts. Each has its share of the limits."""
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
    return config.model_copy(update={"server": server.model_copy(update=inherited), "routes": routes, "keys": keys})


def _with_share(route: RouteConfig, count: int) -> RouteConfig:
    limits = route.admission
    share = {name: math.ceil(getattr(limits, name) / count) for name in ("running_tokens", "queue_tokens")}
    return route.model_copy(update={"admission": limits.model_copy(update=share)})
