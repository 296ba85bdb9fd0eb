"""One line in the terminal while a run goes on."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from typing import Final, TextIO

from loadtest.records import RunProgress

_RECENT: Final = 200
"""Replies that the shown median is taken over."""


def line(live: RunProgress, seconds: float) -> str:
    """The state of a run in at most 100 columns."""
    parts = [
        f"{seconds:6.1f} s",
        f"{live.finished}/{live.planned} done",
        f"{live.started - live.finished} running",
        f"{live.finished / seconds if seconds else 0.0:.1f} requests/s",
    ]
    if live.latencies_ns:
        recent = live.latencies_ns[-_RECENT:]
        parts.append(f"median of the last {len(recent)}: {median(recent) / 1e6:.0f} ms")
    if live.failed:
        parts.append(f"{live.failed} failed")
    return " · ".join(parts)


@asynccontextmanager
async def progress_line(title: str, quiet: bool = False) -> AsyncIterator[RunProgress]:
    """Shows the `RunProgress` that it gives: rewritten twice a second in a terminal, every ten seconds if not."""
    live, began = RunProgress(), perf_counter()
    if quiet:
        yield live
        return
    to = sys.stderr
    terminal = to.isatty()
    print(title, file=to)
    task = asyncio.create_task(_refresh(live, began, to, terminal))
    try:
        yield live
    finally:
        task.cancel()
        _write(line(live, perf_counter() - began), to, terminal)
        print(file=to, flush=True)


async def _refresh(live: RunProgress, began: float, to: TextIO, terminal: bool) -> None:
    while True:
        await asyncio.sleep(0.5 if terminal else 10.0)
        _write(line(live, perf_counter() - began), to, terminal)


def _write(text: str, to: TextIO, terminal: bool) -> None:
    print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n", file=to, flush=True)
