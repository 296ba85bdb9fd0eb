"""So many at a time, and callers in turn: who asks for much does not keep waiting who asks for little."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSemaphore:
    """`size` slots. One that gets free goes to the caller whose turn it is, to that caller's earliest request."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def taken(self, caller: object) -> AsyncIterator[None]:
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
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # the slot was there already
                self._give()
            raise

    def _give(self) -> None:
        """Hands a slot to the next who still waits. Callers are in the order of their turns."""
        while self._waiting:
            caller = next(iter(self._waiting))
            places = self._waiting.pop(caller)
            place = places.popleft()
            if places:
                self._waiting[caller] = places
            if not place.cancelled():
                place.set_result(None)
                return
        self._free += 1
