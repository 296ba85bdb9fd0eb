"""HTTP on one connection, as uvicorn speaks it, for clients that mean no good: heads have a size, and come in time."""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.config.load import ServerConfig
from server.edges.errors import ApiError


class BoundedHttp(HttpToolsProtocol):
    """Between two requests, and while the rest of a refused one arrives, a connection lives for `head_seconds`.

    uvicorn itself waits for a first head for ever, and for as many bytes of it as are sent. The body of a request that
    is being answered is bounded where its handler reads it.
    """

    limits: ServerConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_bytes: int | None = 0  # None: the head is whole
        self._deadline: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        had_begun = self._head_bytes is not None
        super().data_received(data)
        if self.transport.is_closing():
            return
        if had_begun and self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_head_bytes:
                self._refuse(431, f"the head of the request is larger than {self.limits.max_head_bytes} bytes")
                return
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.limits.head_seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the head of the request was not there within {self.limits.head_seconds:g} seconds")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """The answer to what never became a request, and the end of the connection, for a request before it too."""
        self._stop_waiting()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # uvicorn would notice only later, and write to what is closed
            self.cycle.message_event.set()
        body = ApiError(status, message, code=HTTPStatus(status).name.lower()).body()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def bounded_http(limits: ServerConfig) -> type[BoundedHttp]:
    """The protocol of a server with these limits: uvicorn makes one of it for each connection."""
    fields: dict[str, Any] = {"limits": limits}
    return type("BoundedHttp", (BoundedHttp,), fields)
