"""What the processes of an engine inherit from the one that starts them: its environment, and the signals they see."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """The process environment while an engine starts: its processes inherit it, the next engine may want another."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Processes that this thread starts inside the block ignore SIGINT for good. The thread itself must not be the one
    that handles signals.

    A terminal's Ctrl+C is for the server: a terminal sends SIGINT to every process of the foreground group, and vLLM's
    processes take it for an order to stop at once, before the server has drained. A signal mask passes through fork and
    exec, so they never see it; SIGTERM, with which vLLM ends its processes, still reaches them.
    """
    # The tracker unblocks SIGINT in the thread that starts it, which is the first to spawn a process: start it before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
