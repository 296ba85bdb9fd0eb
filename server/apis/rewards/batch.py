"""Thousands of items with bounded memory: a window of them in flight, results in order, each failing by itself."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


class NotJudged(Exception):
    """The server was told to stop before this item was judged."""

    def __init__(self) -> None:
        super().__init__("the server is stopping: this item was not judged")


@dataclass(frozen=True, slots=True)
class Work(Generic[Result]):
    """One item, ready to start. `weight` is how much of the window it takes."""

    weight: int
    start: Callable[[], Coroutine[Any, Any, Result]]


async def in_order(
    works: Iterable[Work[Result] | Exception], window: int, stopping: asyncio.Event, grace: float
) -> AsyncGenerator[tuple[int, Result | Exception], None]:
    """Number and result, or error, of every item. An `Exception` among `works` is that item's result.

    No more weight than `window` is in flight (a single item may be heavier), and nothing new is begun while results
    are not taken. Once `stopping` is set nothing new is begun at all, what is in flight has `grace` seconds, and the
    rest is `NotJudged`. Closing ends what is in flight.
    """
    batch = _Batch(enumerate(works), window)
    halt = asyncio.ensure_future(stopping.wait())
    deadline: float | None = None
    try:
        while batch.fill(stopped=stopping.is_set()):
            if deadline is None:
                await asyncio.wait((halt, batch.first), return_when=asyncio.FIRST_COMPLETED)
                if halt.done():
                    deadline = asyncio.get_running_loop().time() + grace
            if deadline is not None and not batch.first.done():
                await asyncio.wait((batch.first,), timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
                if not batch.first.done():
                    batch.first.cancel()
                    await asyncio.wait((batch.first,))
            yield batch.taken()
    finally:
        halt.cancel()
        await batch.end()


class _Batch(Generic[Result]):
    """Items that are in flight, in order."""

    def __init__(self, works: Iterator[tuple[int, Work[Result] | Exception]], window: int) -> None:
        self._works = works
        self._window = window
        self._running: deque[tuple[int, int, asyncio.Future[Result]]] = deque()
        self._weight = 0
        self._next = next(works, None)

    @property
    def first(self) -> asyncio.Future[Result]:
        return self._running[0][2]

    def fill(self, *, stopped: bool) -> bool:
        """Starts what fits. False: nothing is in flight and nothing is left."""
        while self._next is not None:
            index, work = self._next
            weight = work.weight if isinstance(work, Work) else 0
            if self._running and (self._weight + weight > self._window or len(self._running) >= self._window):
                break
            self._running.append((index, weight, _started(NotJudged() if stopped else work)))
            self._weight += weight
            self._next = next(self._works, None)
        return bool(self._running)

    def taken(self) -> tuple[int, Result | Exception]:
        """The first in flight, which is done."""
        index, weight, future = self._running.popleft()
        self._weight -= weight
        if future.cancelled():
            return index, NotJudged()
        error = future.exception()
        if error is None:
            return index, future.result()
        if not isinstance(error, Exception):
            raise error
        return index, error

    async def end(self) -> None:
        for _, _, future in self._running:
            future.cancel()
        if self._running:
            await asyncio.wait([future for _, _, future in self._running])
        for _, _, future in self._running:
            if not future.cancelled():
                future.exception()  # looked at, so that nobody warns of it


def _started(work: Work[Result] | Exception) -> asyncio.Future[Result]:
    if isinstance(work, Work):
        return asyncio.ensure_future(work.start())
    failed: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    failed.set_exception(work)
    return failed
