"""Slots: so many at a time, callers in turn, and nothing lost with those who leave."""

import asyncio

import pytest

from controllers.concurrency import FairSemaphore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Requests of callers, each of which holds its slot until it is told to let go. `began` are those that got one."""

    def __init__(self, size: int) -> None:
        self.slots = FairSemaphore(size)
        self.began: list[str] = []
        self._over: dict[str, asyncio.Event] = {}

    async def begin(self, *names: str) -> list[asyncio.Task[None]]:
        """Requests by name; the first letter is the caller."""
        tasks = [asyncio.create_task(self._hold(name)) for name in names]
        await asyncio.sleep(0)
        return tasks

    async def _hold(self, name: str) -> None:
        async with self.slots.slot(name[0]):
            self.began.append(name)
            self._over[name] = asyncio.Event()
            await self._over[name].wait()

    async def end(self, name: str) -> None:
        self._over[name].set()
        for _ in range(3):  # the one who holds it wakes, gives it, and the next wakes
            await asyncio.sleep(0)


async def test_callers_get_slots_in_turn_and_a_callers_requests_in_order():
    work = Work(1)
    tasks = await work.begin("a1", "a2", "a3", "a4", "b1", "c1", "b2")
    for _ in tasks:
        await work.end(work.began[-1])
    assert work.began == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    assert all(task.done() for task in tasks)


async def test_no_more_have_one_than_there_are():
    work = Work(2)
    await work.begin("a1", "a2", "b1")
    assert work.began == ["a1", "a2"]
    await work.end("a2")
    assert work.began == ["a1", "a2", "b1"]
    await work.end("a1")
    await work.end("b1")
    await work.begin("c1", "c2", "c3")
    assert work.began[3:] == ["c1", "c2"]
    await work.end("c1")
    await work.end("c2")
    await work.end("c3")


async def test_who_leaves_while_waiting_is_passed_over():
    work = Work(1)
    _, second, third, _ = await work.begin("a1", "b1", "c1", "d1")
    second.cancel()
    third.cancel()
    await work.end("a1")
    assert work.began == ["a1", "d1"]
    await work.end("d1")
    await work.begin("e1")
    assert work.began[-1] == "e1"
    await work.end("e1")


async def test_who_leaves_as_its_turn_comes_hands_it_on():
    work = Work(1)
    first, second, _ = await work.begin("a1", "b1", "c1")
    first.cancel()
    await asyncio.sleep(0)  # a1 has given its slot to b1, which has not woken yet
    second.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert work.began == ["a1", "c1"]
    await work.end("c1")
