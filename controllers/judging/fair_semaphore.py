"""A fair semaphore, round-robin by caller: each caller that waits gets one slot before any gets a second."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class FairSemaphore:
    """`size` slots. One that gets free goes to the caller whose turn it is, to that caller's earliest request."""

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
