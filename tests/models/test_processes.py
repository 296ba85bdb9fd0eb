"""Ctrl+C reaches the whole process group; engines must not take it for theirs."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from models.engines.processes import interrupts_kept_from_children


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

    def start() -> None:
        with interrupts_kept_from_children():
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
        child.kill()
        child.join()
