"""Server-sent events, and replies that end when their client goes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.edges.errors import ApiError, ServerStopping, reported

T = TypeVar("T")
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
    """The result of `work`, which is cancelled and waited for when the client goes (`ClientGone`)."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends each item of `frames` as it comes.

    Headers leave with the first frame, so an error before it is an ordinary HTTP error. After it, an error is an SSE
    error event, which `ending` writes, then the stream closes. `headers` is read when the first frame is there, so that
    `frames` may still fill it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        ending: Callable[[ApiError], bytes] = openai_ending,
    ) -> None:
        self.frames = frames
        self.ending = ending
        self.late_headers = headers
        self.status_code = 200
        self._started = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send_all(send))
        except ClientGone:
            return
        except asyncio.CancelledError:
            if not (self._started and scope["app"].state.runtime.cut.is_set()):
                raise
            await self._end(send, ServerStopping(), scope)
        except Exception as error:
            if self._started:
                await self._end(send, error, scope)
            raise  # behind the first byte this closes the connection

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self.frames) as frames:
            async for frame in frames:
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": self._raw_headers()})
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(self, send: Send, error: Exception, scope: Scope) -> None:
        """An error event, and the end of the stream."""
        event = self.ending(reported(error, scope["state"]["request_id"]))
        await send({"type": "http.response.body", "body": event, "more_body": False})

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        fixed = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        return [(key.encode(), value.encode()) for key, value in {**fixed, **self.late_headers}.items()]
