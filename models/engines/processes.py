"""The processes that an engine starts: what they inherit, and that none of them outlives the one that started it.

This file also runs by itself, as the guard of an engine: `python processes.py MARK PARENT` waits for the process PARENT
to end, however it does, and kills the processes of the engine. It imports nothing outside the standard library.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

MARK = "REASOND_ENGINE"
"""The variable in the environment of an engine's processes that tells whose they are."""
KILL_SECONDS = 5.0
POLL_SECONDS = 0.02


class EngineProcesses:
    """The processes of one engine, found by a mark in their environment. So they must be started by exec, not by fork
    alone; a fork would inherit our clients' connections as well, and keep them open."""

    def __init__(self) -> None:
        self._mark = uuid4().hex
        self._guard: subprocess.Popen[bytes] | None = None

    @contextmanager
    def started(self) -> Iterator[None]:
        """Processes that this thread starts inside the block are the engine's. They never see SIGINT: a terminal sends
        it to every process of the foreground group, and vLLM's take it for an order to stop at once, before the server
        has drained. SIGTERM, with which vLLM ends its processes, still reaches them. The thread itself must not be the
        one that handles signals."""
        command = [sys.executable, "-I", "-S", __file__, self._mark, str(os.getpid())]
        self._guard = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        # SPT_NOENV: else the titles that vLLM gives its processes are written over their environment, mark included.
        inherited = {MARK: self._mark, "SPT_NOENV": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
        with _interrupts_kept(), environment(inherited):
            yield

    def kill(self) -> None:
        """Kills what still lives of them, and waits until it is gone. May be called more than once."""
        kill_marked(self._mark)
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """The process environment while an engine starts: its processes inherit it, the next engine may want another."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """A signal mask passes through fork and exec: children that are started while SIGINT is blocked never see it."""
    from multiprocessing import resource_tracker

    # The tracker unblocks SIGINT in the thread that starts it, which is the first to spawn a process: start it before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def marked(mark: str) -> list[int]:
    """The living processes with this mark. One that has ended and is not yet waited for has no environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill_marked(mark: str) -> None:
    """Ends when none is left, those that were started meanwhile included, or after some seconds."""
    deadline = time.monotonic() + KILL_SECONDS
    while (found := marked(mark)) and time.monotonic() < deadline:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _guard(mark: str, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the parent, which may take its time
        signal.signal(number, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        process = os.pidfd_open(parent)
        if os.getppid() == parent:
            select.select([process], [], [])
    kill_marked(mark)


if __name__ == "__main__":
    _guard(sys.argv[1], int(sys.argv[2]))
