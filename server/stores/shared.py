"""The responses of all replicas: what runs here is in memory, what has ended and what runs elsewhere is behind it.

Without a backend this is the memory alone. With one every state of a response is written there, and a request that
runs on another replica hears of an interrupt through it. Where the backend fails, a replica goes on with what it has in
memory, and says so in the log.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from uuid import uuid4

import orjson

from server.stores.responses import ResponseStore, Stored

log = logging.getLogger(__name__)

ALIVE_SECONDS = 10.0  # how long a replica counts as alive after its last sign
SETTLE_SECONDS = 1.0  # for a response to be written that its client knows has ended
WRITE_SECONDS = 0.3  # for anything to be written
LOOK_SECONDS = 0.02
FLUSH_SECONDS = 5.0

Take = Callable[[bytes], bytes | None]


class Backend(Protocol):
    """Values by name, each for some seconds, and calls that reach every replica. All may raise `OSError`."""

    async def get(self, name: str) -> bytes | None: ...
    async def set(self, name: str, value: bytes, seconds: float) -> None: ...
    async def delete(self, name: str) -> None: ...

    async def call(self, message: bytes) -> bytes | None:
        """The answer of the first replica that has one; None where none has."""
        ...

    async def serve(self, take: Take) -> None:
        """Answers the calls of others, until it is cancelled."""
        ...

    async def close(self) -> None: ...


class Responses:
    """By key name and id: nobody finds another key's responses. `take` answers a call for a request that runs here."""

    def __init__(self, local: ResponseStore, backend: Backend | None = None, seconds: float = 0.0) -> None:
        self._local = local
        self._backend = backend
        self._seconds = seconds
        self._replica = uuid4().hex
        self._writes: asyncio.Queue[tuple[str, bytes | None]] = asyncio.Queue()

    @property
    def has_backend(self) -> bool:
        return self._backend is not None

    @property
    def most(self) -> int:
        return self._local.most

    def has_room(self, size: int) -> bool:
        return self._local.has_room(size)

    def put(self, key_name: str | None, stored: Stored) -> bool:
        """Keeps a response, or its new state. False where it is not kept."""
        if not self._local.put(key_name, stored):
            return False
        if self._backend is not None:
            self.write(_name(key_name, stored.id), orjson.dumps(self._record(stored)))
            if stored.interrupt is None:
                self._local.delete(key_name, stored.id)
                for item in (*stored.items, *stored.body["output"]):
                    self.write(_name(key_name, item["id"]), orjson.dumps(item))
        return True

    async def find(self, key_name: str | None, response_id: str) -> Stored | None:
        """A response that runs elsewhere has no interrupt, and its status tells that it runs."""
        if (here := self._local.find(key_name, response_id)) is not None:
            return here
        record = await self._written(_name(key_name, response_id))
        if record is None or "body" not in record:
            return None
        stored = Stored(record["body"], record["earlier"], record["items"])
        if record["replica"] and await self.read(_replica(record["replica"])) is None:
            error = {"code": "server_error", "message": "the server that ran this response has stopped"}
            stored.body |= {"status": "failed", "error": error}
        return stored

    async def ended(self, key_name: str | None, response_id: str) -> Stored | None:
        """`find`, after some patience with a response that runs elsewhere: its client may know that it has ended before
        that is written."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_SECONDS
        while (stored := await self.find(key_name, response_id)) is not None and runs(stored):
            if stored.interrupt is not None or loop.time() > deadline:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return stored

    async def item(self, key_name: str | None, item_id: str) -> Mapping[str, Any] | None:
        """The item of any response of this key that has this id."""
        if (here := self._local.item(key_name, item_id)) is not None:
            return here
        record = await self._written(_name(key_name, item_id))
        return None if record is None or "body" in record else record

    def delete(self, key_name: str | None, response_id: str) -> None:
        self._local.delete(key_name, response_id)
        if self._backend is not None:
            self.write(_name(key_name, response_id), None)

    def is_here(self, key_name: str | None, stored: Stored) -> bool:
        return self._local.find(key_name, stored.id) is stored

    async def ask(self, key_name: str | None, request_id: str, wish: str) -> str | None:
        """Asks whatever replica runs this request. None where none does, "" where it was asked, else why it cannot."""
        if self._backend is None:
            return None
        with suppress(OSError):
            answer = await self._backend.call(orjson.dumps([key_name, request_id, wish]))
            return None if answer is None else answer.decode()
        return None

    async def run(self, take: Callable[[str | None, str, str], str | None]) -> None:
        """Writes, shows that this replica lives, and hands calls to `take`, until it is cancelled."""
        if self._backend is None:
            return
        backend = self._backend

        def taken(message: bytes) -> bytes | None:
            answer = take(*orjson.loads(message))
            return None if answer is None else answer.encode()

        async def serving() -> None:
            while True:
                try:
                    await backend.serve(taken)
                except OSError as error:
                    log.warning("the store does not tell of interrupts: %s", error)
                    await asyncio.sleep(1.0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serving())
            tasks.create_task(self._living())
            tasks.create_task(self._writing())

    async def flush(self) -> None:
        """Waits until all is written, as long as `run` runs, but not for ever."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._writes.join(), FLUSH_SECONDS)

    async def close(self) -> None:
        if self._backend is not None:
            await self._backend.close()

    def _record(self, stored: Stored) -> dict[str, Any]:
        replica = self._replica if stored.interrupt is not None else ""
        return {"body": stored.body, "earlier": stored.earlier, "items": stored.items, "replica": replica}

    def write(self, name: str, value: bytes | None) -> None:
        self._writes.put_nowait((name, value))

    async def _writing(self) -> None:
        while True:
            await self._write_next()

    async def _write_next(self) -> None:
        assert self._backend is not None
        name, value = await self._writes.get()
        try:
            if value is None:
                await self._backend.delete(name)
            else:
                await self._backend.set(name, value, self._seconds)
        except OSError as error:
            log.warning("what the store should keep is lost: %s", error)
        finally:
            self._writes.task_done()

    async def _living(self) -> None:
        assert self._backend is not None
        while True:
            with suppress(OSError):
                await self._backend.set(_replica(self._replica), b"1", ALIVE_SECONDS)
            await asyncio.sleep(ALIVE_SECONDS / 4)

    async def _written(self, name: str) -> Any:
        """After some patience: a replica answers its client before the store has it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WRITE_SECONDS
        while (value := await self.read(name)) is None:
            if self._backend is None or loop.time() > deadline:
                return None
            await asyncio.sleep(LOOK_SECONDS)
        return value

    async def read(self, name: str) -> Any:
        """What the backend has under this name; None where there is nothing, or no backend to be had."""
        if self._backend is None:
            return None
        try:
            value = await self._backend.get(name)
        except OSError as error:
            log.warning("the store cannot be read: %s", error)
            return None
        return None if value is None else orjson.loads(value)


def runs(stored: Stored) -> bool:
    """Here or elsewhere."""
    return stored.interrupt is not None or stored.body.get("status") in ("queued", "in_progress")


def _name(key_name: str | None, name: str) -> str:
    return f"reasond:{orjson.dumps([key_name, name]).decode()}"


def _replica(replica: str) -> str:
    return f"reasond:replica:{replica}"
