"""Work side by side: results gathered, progress while a result is made, slots in turn."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

E = TypeVar("E")
T = TypeVar("T")

LARGE = 128 * 1024
"""Bytes or characters that take about a millisecond to validate or to tokenise: more than other replies should wait."""


async def gather(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first error, or the end of the caller, ends them all before it travels on."""
    if len(works) == 1:
        return [await works[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def gather_bounded(limit: int, works: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """The results of all, in order; no more than `limit` (at least one) are begun and not over."""
    results: dict[int, T] = {}
    remaining = iter(enumerate(works))

    async def work() -> None:
        for index, start in remaining:
            results[index] = await start()

    await gather([work() for _ in range(min(limit, len(works)))])
    return [results[index] for index in range(len(works))]


async def with_progress(work: Callable[[Callable[[E], None]], Coroutine[Any, Any, T]]) -> AsyncGenerator[E | T, None]:
    """What `work` reports while it runs, then its result. Closing ends the work."""
    queue: asyncio.Queue[E | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (event := await queue.get()) is not None:
            yield event
        yield task.result()
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread where `size`, in bytes or characters, is large: other replies go on.

    What the work calls must give way itself: code that holds the interpreter's lock holds up the loop all the same.
    """
    return await asyncio.to_thread(work) if size > LARGE else work()


class FairSemaphore:
    """A semaphore of `size` slots, round-robin by caller: each caller that waits gets one before any gets a second."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  # callers in the order of their turns

    @asynccontextmanager
    async def slot(self, caller: object) -> AsyncGenerator[None, None]:
        """Holds a slot, waiting for one first. `caller` is any hashable object."""
        await self._take(caller)
        try:
            yield
        finally:
            self._give()

    async def _take(self, caller: object) -> None:
        if self._free:
            self._free -= 1
            return
        slot = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():  # it was given already
                self._give()
            raise

    def _give(self) -> None:
        """Hands a slot to the next who still waits."""
        while self._waiting:
            caller = next(iter(self._waiting))
            requests = self._waiting.pop(caller)
            slot = requests.popleft()
            if requests:
                self._waiting[caller] = requests
            if not slot.cancelled():
                slot.set_result(None)
                return
        self._free += 1
