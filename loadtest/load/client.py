"""The wire: HTTP/1.1 over kept-alive connections, as little work for each read as will do.

Why not an HTTP client library: on two cores the load tester shares the machine with the server it measures. For one
server-sent event, on uvloop, httpx took 66 microseconds of processor time, aiohttp 14-19, and this file 8-11
(httptools parses; two list appends are all that is ours). Bodies stay raw here; `stream` reads them after the run.
"""

import asyncio
import ssl
from time import perf_counter_ns
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

from loadtest.records import HttpExchange, LoadTarget

_OPENING: Final = 64
"""Connections opened side by side when warming up: fewer than any server's accept queue holds."""


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time. `exchange` is done when the future that `send` returned is."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._exchange: HttpExchange
        self._done: asyncio.Future[None] | None = None
        self._now = 0
        self.reusable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send(self, request: bytes, exchange: HttpExchange) -> asyncio.Future[None]:
        self._exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        exchange.sent_ns = perf_counter_ns()
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        self.reusable = False
        self._transport.abort()

    # asyncio and httptools call what follows

    def data_received(self, data: bytes) -> None:
        self._now = perf_counter_ns()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, AttributeError) as error:  # AttributeError: bytes before any request
            self._finish("unreadable", str(error))
            self.close()

    def on_message_begin(self) -> None:
        self._exchange.first_byte_ns = self._now

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        exchange.times.append(self._now)
        exchange.pieces.append(body)

    def on_headers_complete(self) -> None:
        self._exchange.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if (self._exchange.status or 0) < 200:  # "100 Continue": the response is still to come
            return
        self.reusable = self.reusable and self._parser.should_keep_alive()
        self._finish(None, "")

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        self._now = perf_counter_ns()
        self._finish("disconnect", str(error or "the server closed the connection"))

    def _finish(self, error: str | None, detail: str) -> None:
        if self._done is None or self._done.done():
            return
        self._exchange.end_ns = self._now
        self._exchange.error, self._exchange.detail = error, detail
        self._done.set_result(None)


class LoadClient:
    """Sends requests to one target, over as many connections as there are requests in flight."""

    def __init__(self, target: LoadTarget, timeout: float = 600.0) -> None:
        """`timeout`, in seconds, bounds each request from start to last byte."""
        parts = urlsplit(target.url if "://" in target.url else f"http://{target.url}")
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"not the URL of an HTTP server: {target.url}")
        self._host, self._timeout = parts.hostname, timeout
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._head = _head(_path(parts.path), parts.netloc.rpartition("@")[2], target.key)
        self._idle: list[HttpConnection] = []

    async def warm(self, connections: int) -> None:
        """Opens connections beforehand. Raises OSError if the server is not there."""
        for start in range(0, connections, _OPENING):
            opening = [self._connect() for _ in range(min(_OPENING, connections - start))]
            self._idle += await asyncio.gather(*opening)

    async def send(self, body: bytes) -> HttpExchange:
        """Sends one request and waits for its end. What goes wrong is in `HttpExchange.error`, never raised."""
        exchange = HttpExchange(perf_counter_ns())
        try:
            async with asyncio.timeout(self._timeout):
                await self._exchange(self._head % len(body) + body, exchange)
        except TimeoutError:
            exchange.error, exchange.detail = "timeout", f"no end after {self._timeout:g} s"
            exchange.end_ns = perf_counter_ns()
        except OSError as error:
            exchange.error, exchange.detail = "connect", str(error)
            exchange.end_ns = perf_counter_ns()
        return exchange

    async def _exchange(self, request: bytes, exchange: HttpExchange) -> None:
        while self._idle and not self._idle[-1].reusable:
            self._idle.pop()
        if self._idle:
            await self._use(self._idle.pop(), request, exchange)
            if exchange.first_byte_ns is not None:
                return
        # none kept, or the server closed it, being idle, just as we wrote
        await self._use(await self._connect(), request, exchange)

    async def _use(self, connection: HttpConnection, request: bytes, exchange: HttpExchange) -> None:
        try:
            await connection.send(request, exchange)
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(HttpConnection, self._host, self._port, ssl=self._tls))[1]

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports go before the loop does


def _path(path: str) -> str:
    path = path.rstrip("/")
    if path.endswith("/chat/completions"):
        return path
    return f"{path}/chat/completions" if path.endswith("/v1") else f"{path}/v1/chat/completions"


def _head(path: str, host: str, key: str | None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json", "accept: */*"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join(lines).replace("%", "%%").encode() + b"\r\ncontent-length: %d\r\n\r\n"
