"""The processes of an engine: they take no Ctrl+C for theirs, and none outlives the one that started it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from models.engines.processes import EngineProcesses, marked

ROOT = Path(__file__).parents[2]


def obedient(pipe: Connection) -> None:
    """A process that, like vLLM's, sets handlers of its own and stops at either signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(number))
    pipe.send("up")
    time.sleep(60)


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_child_started_inside_outlives_an_interrupt_and_obeys_a_termination():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=obedient, args=(theirs,))

    processes = EngineProcesses()

    def start() -> None:
        with processes.started():
            child.start()
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    in_a_thread(start)
    try:
        assert ours.recv() == "up"
        os.kill(child.pid, signal.SIGINT)
        child.join(0.5)
        assert child.is_alive()
        child.terminate()
        child.join(20)
        assert child.exitcode == signal.SIGTERM
    finally:
        processes.kill()
        child.join()


PARENT = """
import subprocess, sys, time
from models.engines.processes import EngineProcesses

processes = EngineProcesses()
with processes.started():
    # A child with a child of its own, which has left the session and shrugs signals off.
    grandchild = "from signal import *; import time; signal(SIGTERM, SIG_IGN); print('up', flush=1); time.sleep(99)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], start_new_session=True)"
    subprocess.Popen([sys.executable, "-c", child])
print(processes._mark, flush=True)
time.sleep(99)
"""


def orphaned(end: Callable[[subprocess.Popen[str], str], None]) -> tuple[list[int], float]:
    """The processes that an engine had when its parent ended, and the seconds until none was left."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    (mark,) = {parent.stdout.readline().strip() for _ in range(2)} - {"up"}
    had = marked(mark)
    end(parent, mark)
    began = time.monotonic()
    while marked(mark) and time.monotonic() - began < 10:
        time.sleep(0.01)
    parent.wait()
    parent.stdout.close()
    return had, time.monotonic() - began


def test_no_process_of_an_engine_outlives_a_parent_that_is_killed() -> None:
    had, seconds = orphaned(lambda parent, mark: parent.kill())
    assert len(had) == 2
    assert seconds < 5


def test_a_process_that_is_stopped_does_not_outlive_it_either() -> None:
    def stopped(parent: subprocess.Popen[str], mark: str) -> None:
        for process in marked(mark):
            os.kill(process, signal.SIGSTOP)
        parent.kill()

    assert orphaned(stopped)[1] < 5


def test_an_engine_that_is_killed_leaves_neither_a_process_nor_its_guard() -> None:
    processes = EngineProcesses()
    with processes.started():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    guard = processes._guard
    processes.kill()
    assert child.wait(5) == -signal.SIGKILL
    assert guard is not None
    assert guard.poll() is not None
    processes.kill()
