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


def openai_ending(error: ApiError) -> bytes:
    """The end of a stream of OpenAI's chat or completion API that failed."""
    return b"data: " + error.body() + b"\n\n" + DONE


def named_event(data: Mapping[str, Any]) -> bytes:
    """An event with the name that its data has as `type`."""
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


class ClientGone(ClientDisconnect):
    """The client closed its connection before its reply was complete."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes (`ClientGone`).

    The work runs in the caller's own task, and one task beside it listens for the client. It can cancel the caller only
    while the work waits: behind this function it never speaks.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def listen() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    listening = asyncio.ensure_future(listen())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not task.uncancel():
            raise ClientGone from None
        raise
    finally:
        listening.cancel()


async def _all(frames: AsyncGenerator[bytes, None], put: Put) -> None:
    async with aclosing(frames):
        async for frame in frames:
            await put(frame)


class EventStream(Response):
    """Sends each of `frames` as it comes: an async generator of them, or a function that puts them one by one.

    Headers leave with the first frame, so an error before it is an ordinary HTTP error. After it, an error is an SSE
    error event, which `ending` writes, and the stream is complete. `headers` is read when the first frame is there, so
    that whoever makes frames may still fill it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None] | Callable[[Put], Coroutine[Any, Any, None]],
        headers: Mapping[str, str],
        ending: Callable[[ApiError], bytes] = openai_ending,
    ) -> None:
        self.produce = frames if callable(frames) else partial(_all, frames)
        self.ending = ending
        self.late_headers = headers
        self.status_code = 200
        self._started = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        try:
            await while_connected(receive, self.produce(self._put))
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
        if self._started:
            return self._send({"type": "http.response.body", "body": frame, "more_body": more})
        return self._first(frame, more)

    async def _first(self, frame: bytes, more: bool) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._raw_headers()})
        await self._put(frame, more)

    async def _end(self, error: Exception, scope: Scope) -> None:
        """An error event, and the end of the stream."""
        await self._put(self.ending(reported(error, scope["state"]["request_id"])), more=False)

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        fixed = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        return [(key.encode(), value.encode()) for key, value in {**fixed, **self.late_headers}.items()]
