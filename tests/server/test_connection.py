"""Clients that mean no good, on bare connections: slow heads, large heads, slow bodies, packed bodies."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from server.serve import build_server
from tests.server.running import running

SETTINGS = "[server]\nport = 0\nhead_seconds = 0.3\nbody_seconds = 0.3\nmax_head_bytes = 2000\nmax_body_bytes = 2000\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
GET = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], AbstractAsyncContextManager[Streams]]


@pytest.fixture
async def connect(make_app) -> AsyncIterator[Connect]:
    app = make_app(extra=SETTINGS)
    server = build_server(app.state.runtime.config, app)
    async with running(server) as address:
        host, port = address.removeprefix("http://").split(":")

        @asynccontextmanager
        async def connected() -> AsyncIterator[Streams]:
            reader, writer = await asyncio.open_connection(host, int(port))
            async with asyncio.timeout(5):
                yield reader, writer
            writer.close()

        yield connected


async def trickle(writer: asyncio.StreamWriter, sent: bytes) -> None:
    """A byte now and then, until the server has enough of it."""
    for byte in sent * 100:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_a_head_that_does_not_come_ends_the_connection(connect):
    async with connect() as (reader, _):
        assert await reader.read() == b""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("before", "slow", "status"),
    [
        (b"", b"x-a: b\r\n", b"408"),
        (GET, b"x-a: b\r\n", b"408"),
        (HEAD + b"content-length: 1000\r\n\r\n", b" ", b"408"),
        (HEAD + b"content-length: 999999\r\n\r\n", b" ", b"413"),
    ],
    ids=["first head", "second head", "body", "body that is refused"],
)
async def test_what_trickles_is_ended_in_time(connect, before, slow, status):
    async with connect() as (reader, writer):
        writer.write(before)
        if before is GET:
            assert b" 200 " in await reader.readuntil(b"}")
        if before in (b"", GET):
            writer.write(HEAD)
        trickling = asyncio.create_task(trickle(writer, slow))
        answer = b""
        try:
            while piece := await reader.read(10_000):
                answer += piece
        except ConnectionError:  # it was sent on while the server closed
            assert status == b"413"
        trickling.cancel()
    assert answer.startswith(b"HTTP/1.1 " + status), answer


@pytest.mark.anyio
@pytest.mark.parametrize("large", [b"x-a: " + b"b" * 3000, b"x-a: b\r\n" * 300], ids=["long", "many"])
async def test_a_large_head_is_refused_before_it_is_whole(connect, large):
    async with connect() as (reader, writer):
        writer.write(HEAD + large)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_header_fields_too_large"' in answer


@pytest.mark.anyio
async def test_what_is_no_http_is_told_so(connect):
    async with connect() as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"code":"bad_request"' in answer


@pytest.mark.anyio
async def test_a_connection_that_is_used_lives_on(connect):
    async with connect() as (reader, writer):
        for _ in range(4):
            writer.write(GET)
            assert b" 200 " in await reader.readuntil(b"}")
            await asyncio.sleep(0.15)


@pytest.mark.anyio
async def test_a_packed_body_is_refused_unread(make_client):
    bomb = gzip.compress(b" " * 10_000_000)
    async with make_client() as client:
        answer = await client.post("/v1/chat/completions", content=bomb, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
