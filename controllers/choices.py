"""Several replies to one request: `n` runs of the same controller, side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

E = TypeVar("E")


async def side_by_side(runs: Sequence[AsyncGenerator[E, None]]) -> AsyncGenerator[tuple[int, E], None]:
    """Events of all runs as they come, each with the index of its run. The first error ends them all."""
    if len(runs) == 1:
        async with aclosing(runs[0]) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, E | Exception] | None] = asyncio.Queue(maxsize=4 * len(runs))
    tasks = [asyncio.create_task(_drain(index, run, queue)) for index, run in enumerate(runs)]
    try:
        for _ in runs:
            while (said := await queue.get()) is not None:
                if isinstance(said[1], Exception):
                    raise said[1]
                yield said[0], said[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _drain(
    index: int, run: AsyncGenerator[E, None], queue: asyncio.Queue[tuple[int, E | Exception] | None]
) -> None:
    """All events of one run into the queue, then None; an error goes the same way, to the one who reads."""
    try:
        async with aclosing(run):
            async for event in run:
                await queue.put((index, event))
    except Exception as error:  # noqa: BLE001 - carried to the reader, who raises it
        await queue.put((index, error))
    else:
        await queue.put(None)
