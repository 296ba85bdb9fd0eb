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
    queue: asyncio.Queue[tuple[int, Event | None]] = asyncio.Queue(maxsize=4 * len(runs))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_drain(index, run, queue)) for index, run in enumerate(runs)]
        try:
            for _ in runs:
                while True:
                    index, said = await queue.get()
                    if said is None:
                        break
                    yield index, said
        finally:
            for task in tasks:
                task.cancel()


async def _drain(index: int, run: AsyncGenerator[Event, None], queue: asyncio.Queue[tuple[int, Event | None]]) -> None:
    async with aclosing(run):
        async for event in run:
            await queue.put((index, event))
    await queue.put((index, None))
