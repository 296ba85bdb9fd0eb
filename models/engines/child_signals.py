"""Ctrl+C is for the server: the processes of its engines must outlive it until the server has drained.

A terminal sends SIGINT to every process of the foreground group, and vLLM's processes take it for an order to stop at
once. A signal mask passes through fork and exec, so children that are started while SIGINT is blocked never see it;
SIGTERM, with which vLLM ends its processes, still reaches them.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Processes that this thread starts inside the block ignore SIGINT for good. The thread itself must not be the one
    that handles signals.
    """
    # The tracker unblocks SIGINT in the thread that starts it, which is the first to spawn a process: start it before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
