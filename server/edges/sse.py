"""Server-sent events, and replies that end when their client goes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.edges.errors import ApiError, ServerStopping, reported

T = TypeVar("T")
Put = Callable[[bytes], Awaitable[None]]
"""Sends one piece of a stream."""

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
HEADERS_WITHIN = 0.5  # seconds: what is refused at once has a status of its own, whoever waits sees that it is heard


def openai_ending(error: ApiError) -> bytes:
    """The end of a stream of OpenAI's chat or completion API that failed."""
    return b"data: " + error.body() + b"\n\n" + DONE


def named_event(data: Mapping[str, Any]) -> bytes:
    """An event with the name that its data has as `type`."""
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


class ClientGone(ClientDisconnect):
    """The client closed its connection before its reply was complete."""


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, T], idle: Callable[[], Awaitable[float]] | None = None
) -> T:
    """The result of `work`, which is cancelled and waited for when the client goes (`ClientGone`).

    The work has a task of its own, so that a token wakes only what it passes through; the caller's listens for the
    client until the end of the work wakes it. `idle` is called at the time on the loop's clock that its last call gave.
    """
    task, working, over = asyncio.current_task(), asyncio.ensure_future(work), False
    assert task is not None

    def wake(_: object) -> None:
        if not over:
            task.cancel()

    working.add_done_callback(wake)
    try:
        await _disconnected(receive, idle, working)
    except asyncio.CancelledError:
        if not working.done() or task.uncancel():
            raise
    else:
        if not working.done():
            raise ClientGone
    finally:
        over = True
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    return working.result()


async def _disconnected(
    receive: Receive, idle: Callable[[], Awaitable[float]] | None, working: asyncio.Future[Any]
) -> None:
    """Returns when the client has gone. Where the loop is late it may be time for a sign of life when the work is done
    already: then there is none."""
    gone = False
    while not (gone or working.done()):
        if idle is None:
            message = await receive()
        else:
            try:
                async with asyncio.timeout_at(await idle()):
                    message = await receive()
            except TimeoutError:
                continue
        gone = message["type"] == "http.disconnect"


async def _all(frames: AsyncGenerator[bytes, None], put: Put) -> None:
    async with aclosing(frames):
        async for frame in frames:
            await put(frame)


class EventStream(Response):
    """Sends each of `frames` as it comes: an async generator of them, or a function that puts them one by one.

    Headers leave with the first frame, or without it after `HEADERS_WITHIN` seconds; an error before them is an
    ordinary HTTP error. After them an error is an SSE error event, which `ending` writes, and the stream is complete.
    `headers` is read when they leave, so that whoever makes frames may still fill it. Whenever nothing has been sent
    for `[server] keep_alive_seconds`, what `alive` gives is.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None] | Callable[[Put], Coroutine[Any, Any, None]],
        headers: Mapping[str, str],
        ending: Callable[[ApiError], bytes] = openai_ending,
        alive: Callable[[], bytes] = lambda: COMMENT,
    ) -> None:
        self.produce = frames if callable(frames) else partial(_all, frames)
        self.ending = ending
        self.alive = alive
        self.late_headers = headers
        self.status_code = 200
        self.background = None
        self._started = False
        self._starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._silence: float = scope["app"].state.runtime.config.server.keep_alive_seconds
        self._last: float = self._now() + min(0.0, HEADERS_WITHIN - self._silence)
        try:
            await while_connected(receive, self.produce(self._put), self._idle)
            await self._put(b"", more=False)
        except ClientGone:
            return
        except asyncio.CancelledError:
            if not (self._started and scope["app"].state.runtime.cut.is_set()):
                raise
            await self._end(ServerStopping(), scope)
        except Exception as error:
            if not self._started:
                raise
            await self._end(error, scope)

    def _put(self, frame: bytes, more: bool = True) -> Awaitable[None]:
        """Not a coroutine of its own: this is the path of every token."""
        self._last = self._now()
        if self._started:
            return self._send({"type": "http.response.body", "body": frame, "more_body": more})
        return self._first(frame, more)

    async def _first(self, frame: bytes, more: bool) -> None:
        async with self._starting:  # the first frame and the first sign of life may come together
            if not self._started:
                await self._send({"type": "http.response.start", "status": 200, "headers": self._raw_headers()})
                self._started = True
        await self._put(frame, more)

    async def _idle(self) -> float:
        """Sends a sign of life where it is time for one; gives the time of the next."""
        if self._now() >= self._last + self._silence:
            await self._put(self.alive())
        return self._last + self._silence

    async def _end(self, error: Exception, scope: Scope) -> None:
        """An error event, and the end of the stream."""
        await self._put(self.ending(reported(error, scope["state"]["request_id"])), more=False)

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        fixed = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        return [(key.encode(), value.encode()) for key, value in {**fixed, **self.late_headers}.items()]
