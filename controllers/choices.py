"""Several replies to one request: `n` runs of the same controller, side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from controllers.reply import Event


async def side_by_side(runs: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[tuple[int, Event], None]:
    """Events of all runs as they come, each with the index of its run. The first error ends them all."""
    if len(runs) == 1:
        async with aclosing(runs[0]) as events:
            async for event in events:
                yield 0, event
        return
    queue: _Queue = asyncio.Queue(maxsize=4 * len(runs))
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


_Queue = asyncio.Queue[tuple[int, Event | Exception] | None]


async def _drain(index: int, run: AsyncGenerator[Event, None], queue: _Queue) -> None:
    """All events of one run into the queue, then None; an error goes the same way, to the one who reads."""
    try:
        async with aclosing(run):
            async for event in run:
                await queue.put((index, event))
    except Exception as error:  # noqa: BLE001 - carried to the reader, who raises it
        await queue.put((index, error))
    else:
        await queue.put(None)
