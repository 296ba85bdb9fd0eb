"""The core of a vLLM engine that several processes share: the keeper runs it, each process has a slot at it.

The core greets each of its slots once. So whoever comes after one that died takes a new slot; when none is left, the
core is started again. A slot is a connection to the keeper, open as long as the core lives: what vLLM's client takes
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

SPARE_CLIENTS = 64  # for processes that come after others
SHUTDOWN_SECONDS = 30.0
KILL = b"k"


@dataclass(frozen=True)
class ClientSlot:
    """What the keeper tells whoever comes: its slot at the core, or why there is no core."""

    config: Any = None
    addresses: dict[str, str] | None = None
    index: int = 0
    processes: int = 1
    fault: str = ""


class CoreConnection:
    """A connection to a kept core. `shutdown` leaves it, the core goes on; `kill` ends the core, for all."""

    def __init__(self, keeper: str) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(keeper)

    def client(self) -> AsyncLLM:
        """vLLM's client at this slot, when the core is up. Raises `RuntimeError` where it does not start."""
        with self._link.makefile("rb") as told:
            try:
                slot: ClientSlot = pickle.load(told)
            except EOFError as error:
                raise RuntimeError("the keeper of the engine has ended") from error
        if slot.fault:
            raise RuntimeError(slot.fault)
        llm = AsyncLLM.from_vllm_config(
            slot.config,
            disable_log_stats=True,
            client_addresses=slot.addresses,
            client_count=slot.processes,
            client_index=slot.index,
        )
        llm.engine_core.resources.engine_manager = self
        llm.engine_core.start_engine_core_monitor()
        return llm

    def monitor_engine_liveness(self) -> None:
        """Returns when the core has ended, or the slot is left."""
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
    """One life of the core. `give_slot` gives slots as long as there are any."""

    def __init__(self, args: AsyncEngineArgs, processes: int) -> None:
        self.config = args.create_engine_config()
        self._processes = EngineProcesses()
        addresses = get_engine_zmq_addresses(self.config, processes + SPARE_CLIENTS)
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
        slots = enumerate(zip(addresses.inputs, addresses.outputs, strict=True))
        self._slots: Iterator[ClientSlot] = (
            ClientSlot(self.config, {"input_address": inputs, "output_address": outputs}, index, processes)
            for index, (inputs, outputs) in slots
        )

    def give_slot(self, link: socket.socket) -> bool:
        """False where no slot is left."""
        slot = next(self._slots, None)
        if slot is not None:
            _tell(link, slot)
        return slot is not None

    def kill(self) -> None:
        self._processes.kill()
        self.manager.shutdown(SHUTDOWN_SECONDS)

    def close(self) -> None:
        self.manager.shutdown(SHUTDOWN_SECONDS)
        self.kill()


def keep_core(
    args: AsyncEngineArgs, listener: socket.socket, processes: int, up: Callable[[], None], cause: Callable[[], str]
) -> None:
    """Runs one core after another: whoever connects to the `listener` has it started where none runs. `up` hears that
    one is, `cause` says why one is not."""
    waiting: list[socket.socket] = []
    while True:
        if not waiting:
            waiting.append(listener.accept()[0])
        try:
            core = _Core(args, processes)
        except (ValueError, OSError, RuntimeError) as error:
            while wait([listener], 0):
                waiting.append(listener.accept()[0])
            for link in waiting:
                _tell(link, ClientSlot(fault=cause() or str(error)))
                link.close()
            waiting.clear()
            continue
        up()
        try:
            waiting = _serve(core, listener, waiting)
        except BaseException:
            core.close()
            raise
        core.kill()  # it may be dead, or hang


def _serve(core: _Core, listener: socket.socket, waiting: list[socket.socket]) -> list[socket.socket]:
    """Until the core ends, or is to. Returns those that are to have a slot at the next one."""
    links: list[socket.socket] = []
    try:
        while True:
            while waiting:
                if not core.give_slot(waiting[0]):
                    return waiting
                links.append(waiting.pop(0))
            for ready in wait([listener, *links, *core.manager.sentinels()]):
                if ready is listener:
                    waiting.append(listener.accept()[0])
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


def _tell(link: socket.socket, slot: ClientSlot) -> None:
    with suppress(OSError):  # it has left
        link.sendall(pickle.dumps(slot))
