"""The core of a vLLM engine that several processes share: the keeper runs it, each process has a place at it.

The core greets each of its places once. So whoever comes after one that died takes a new place; when none is left, the
core is started again. A place is a connection to the keeper, open as long as the core lives: what vLLM's client takes
for the manager of its processes.
"""

import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.utils import CoreEngineProcManager, get_engine_zmq_addresses, launch_core_engines
from vllm.v1.executor import Executor

from models.engines.processes import KILL_SECONDS, EngineProcesses

SPARE_PLACES = 64  # for processes that come after others
SHUTDOWN_SECONDS = 30.0
KILL = b"k"


@dataclass(frozen=True)
class Seat:
    """What the keeper tells whoever comes: where it sits at the core, or why there is no core."""

    config: Any = None
    addresses: dict[str, str] | None = None
    index: int = 0
    processes: int = 1
    fault: str = ""


class CorePlace:
    """A place at a kept core. `shutdown` leaves it, the core goes on; `kill` ends the core, for all."""

    def __init__(self, keeper: str) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(keeper)

    def client(self) -> AsyncLLM:
        """vLLM's client at this place, when the core is up. Raises `RuntimeError` where it does not start."""
        with self._link.makefile("rb") as told:
            try:
                seat: Seat = pickle.load(told)
            except EOFError as error:
                raise RuntimeError("the keeper of the engine has ended") from error
        if seat.fault:
            raise RuntimeError(seat.fault)
        llm = AsyncLLM.from_vllm_config(
            seat.config,
            disable_log_stats=True,
            client_addresses=seat.addresses,
            client_count=seat.processes,
            client_index=seat.index,
        )
        llm.engine_core.resources.engine_manager = self
        llm.engine_core.start_engine_core_monitor()
        return llm

    def monitor_engine_liveness(self) -> None:
        """Returns when the core has ended, or the place is left."""
        with suppress(OSError):
            self._link.recv(1)

    def shutdown(self, timeout: float | None = None) -> None:
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        with suppress(OSError):
            self._link.sendall(KILL)
            self._link.settimeout(KILL_SECONDS)
            self._link.recv(1)


class _Core:
    """One life of the core. `seat` gives places as long as there are any."""

    def __init__(self, args: AsyncEngineArgs, processes: int) -> None:
        self.config = args.create_engine_config()
        self._processes = EngineProcesses()
        addresses = get_engine_zmq_addresses(self.config, processes + SPARE_PLACES)
        try:
            with (
                self._processes.started(),
                launch_core_engines(self.config, Executor.get_class(self.config), False, addresses) as launch,
            ):
                manager = launch.engine_manager
        except BaseException:
            self._processes.kill()
            raise
        assert isinstance(manager, CoreEngineProcManager)
        self.manager = manager
        places = enumerate(zip(addresses.inputs, addresses.outputs, strict=True))
        self._seats: Iterator[Seat] = (
            Seat(self.config, {"input_address": inputs, "output_address": outputs}, index, processes)
            for index, (inputs, outputs) in places
        )

    def seat(self, link: socket.socket) -> bool:
        """False where no place is left."""
        seat = next(self._seats, None)
        if seat is not None:
            _tell(link, seat)
        return seat is not None

    def kill(self) -> None:
        self._processes.kill()
        self.manager.shutdown(SHUTDOWN_SECONDS)

    def close(self) -> None:
        self.manager.shutdown(SHUTDOWN_SECONDS)
        self.kill()


def keep_core(
    args: AsyncEngineArgs, door: socket.socket, processes: int, up: Callable[[], None], cause: Callable[[], str]
) -> None:
    """Runs one core after another: whoever comes to the `door` has it started where none runs. `up` hears that one is,
    `cause` says why one is not."""
    waiting: list[socket.socket] = []
    while True:
        if not waiting:
            waiting.append(door.accept()[0])
        try:
            core = _Core(args, processes)
        except (ValueError, OSError, RuntimeError) as error:
            while wait([door], 0):
                waiting.append(door.accept()[0])
            for link in waiting:
                _tell(link, Seat(fault=cause() or str(error)))
                link.close()
            waiting.clear()
            continue
        up()
        try:
            waiting = _serve(core, door, waiting)
        except BaseException:
            core.close()
            raise
        core.kill()  # it may be dead, or hang


def _serve(core: _Core, door: socket.socket, waiting: list[socket.socket]) -> list[socket.socket]:
    """Until the core ends, or is to. Returns those that are to have a place at the next one."""
    links: list[socket.socket] = []
    try:
        while True:
            while waiting:
                if not core.seat(waiting[0]):
                    return waiting
                links.append(waiting.pop(0))
            for ready in wait([door, *links, *core.manager.sentinels()]):
                if ready is door:
                    waiting.append(door.accept()[0])
                elif not isinstance(ready, socket.socket) or _killing(ready):
                    return waiting
                else:
                    links.remove(ready)
                    ready.close()
    finally:
        for link in links:
            link.close()


def _killing(link: socket.socket) -> bool:
    """Whether it asks for the core's end; else it has left."""
    with suppress(OSError):
        return link.recv(1) == KILL
    return False


def _tell(link: socket.socket, seat: Seat) -> None:
    with suppress(OSError):  # it has left
        link.sendall(pickle.dumps(seat))
