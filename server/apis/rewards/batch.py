"""Thousands of items with bounded memory: a window of them in flight, results in order, each failing by itself."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from server.edges.errors import NotJudged

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class WorkItem(Generic[Result]):
    """One item, ready to start. `weight` is how much of the window it takes."""

    weight: int
    start: Callable[[], Coroutine[Any, Any, Result]]


async def in_order(
    works: Iterable[WorkItem[Result] | Exception], window: int, stopping: asyncio.Event, grace: float
) -> AsyncGenerator[Result | BaseException, None]:
    """The result, or the error, of every item, in order. An `Exception` among `works` is that item's result.

    No more weight than `window` is in flight (a single item may be heavier), and nothing new is begun while results
    are not taken. Once `stopping` is set nothing new is begun at all, what is in flight has `grace` seconds, and the
    rest is `NotJudged`. Closing ends what is in flight.
    """
    running: deque[tuple[int, asyncio.Future[Any] | Exception]] = deque()  # weights, and tasks or what failed before

    def end() -> list[asyncio.Future[Any]]:
        tasks = [task for _, task in running if not isinstance(task, Exception)]
        for task in tasks:
            task.cancel()
        return tasks

    async def stop() -> None:
        await stopping.wait()
        await asyncio.sleep(grace)
        end()

    stopper, in_flight = asyncio.ensure_future(stop()), 0
    try:
        for work in works:
            weight = work.weight if isinstance(work, WorkItem) else 0
            while running and (in_flight + weight > window or len(running) >= window):
                yield await _result(running[0][1])
                in_flight -= running.popleft()[0]
            item = NotJudged() if stopping.is_set() else work
            running.append((weight, asyncio.ensure_future(item.start()) if isinstance(item, WorkItem) else item))
            in_flight += weight
        while running:
            yield await _result(running[0][1])
            running.popleft()
    finally:
        stopper.cancel()
        await asyncio.gather(stopper, *end(), return_exceptions=True)


async def _result(task: asyncio.Future[Any] | Exception) -> Any:
    if isinstance(task, Exception):
        return task
    results = await asyncio.gather(task, return_exceptions=True)
    return NotJudged() if isinstance(results[0], asyncio.CancelledError) else results[0]
