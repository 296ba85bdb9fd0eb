"""Whatever is sent: bodies made up from the schema over all routes, and hand-made bytes on bare connections. Nothing is
answered with a 5xx, and the server then holds what it held before."""

import random
import socket
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.processes import ROOT
from tests.server.fuzz import fuzz
from tests.wire.storm import MIB, Held, reasond_serve

SETTINGS = f"""
[server]
stored_responses = 50
max_body_bytes = 1000000
head_seconds = 2
body_seconds = 2
[engines.demo]
kind = "scripted"
model = "{ROOT / "demo" / "tokenizer"}"
replies = ["<think>so</think>four", "<no_think>no", "<think><think>", "</think>", '{{"name": "f", "arguments": {{']
[engines.slow]
kind = "scripted"
model = "{ROOT / "demo" / "tokenizer"}"
length = 2000
token_delay = 0.005
[routes.demo]
engine = "demo"
family = "lhrm"
judged_by = "judge"
[routes.slow]
engine = "slow"
family = "plain"
[routes.judge]
engine = "demo"
family = "lhrm"
controller = "judge"
judge = {{ votes = 1, cache_size = 0 }}
"""
ANSWER_SECONDS = 10.0
MEMORY = 48 * MIB
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"

Bytes = Callable[[random.Random], Sequence[bytes]]
"""What one connection sends, piece by piece."""


def story(short: bool) -> dict[str, Any]:
    bodies, connections = (1000, 300) if short else (10_000, 1000)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.toml")
        settings.write_text(SETTINGS)
        with reasond_serve(settings) as server:
            fuzz(server, bodies // 10, number=0)
            _connections(server.url, connections // 10, random.Random(0))
            before = server.settled()
            asked = fuzz(server, bodies, number=1)
            answered = _connections(server.url, connections, random.Random(1))
            after = server.settled()
    assert not [one for one in answered if one.startswith("5")], answered
    _nothing_left(before, after)
    statuses: Counter[str] = Counter()
    for (_, status), count in asked.items():
        statuses[str(status)] += count
    return {
        "bodies": asked.total(),
        "bodies_answered": dict(sorted(statuses.items())),
        "connections": connections,
        "connections_answered": dict(sorted(answered.items())),
        "before": str(before),
        "after": str(after),
    }


def _nothing_left(before: Held, after: Held) -> None:
    assert (after.requests, after.engine_requests) == (0, 0)
    assert after.tasks <= before.tasks, (before, after)
    assert after.descriptors <= before.descriptors, (before, after)
    for name, size in after.rss.items():
        assert size - before.rss[name] < MEMORY, (name, before, after)


def _connections(url: str, count: int, drawn: random.Random) -> Counter[str]:
    """Statuses of what came back; "closed" where the connection was, "left" where we left first."""
    host, port = url.removeprefix("http://").split(":")
    seen: Counter[str] = Counter()
    for number in range(count):
        leaves = drawn.choice((None, "close", "reset"))
        seen[_connection((host, int(port)), KINDS[number % len(KINDS)](drawn), leaves)] += 1
    return seen


def _connection(address: tuple[str, int], pieces: Sequence[bytes], leaves: str | None) -> str:
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if leaves == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if leaves is not None:
                return "left"
            answer = connection.recv(4096)
        except ConnectionError:
            return "closed"
    return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


def _chat(drawn: random.Random, **fields: Any) -> bytes:
    said = "".join(chr(drawn.choice((0, 9, 65, 0x2028, 0x1F600, 0xFFFF))) for _ in range(drawn.randrange(200)))
    return orjson.dumps({"model": "demo", "messages": [{"role": "user", "content": said}], **fields})


def _request(body: bytes, *headers: str, length: int | None = None) -> bytes:
    told = [f"content-length: {len(body) if length is None else length}", *headers]
    return (HEAD + "\r\n".join(told) + "\r\n\r\n").encode() + body


def _half_a_body(drawn: random.Random) -> Sequence[bytes]:
    body = _chat(drawn)
    return [_request(body[: drawn.randrange(len(body))], length=len(body))]


def _half_a_head(drawn: random.Random) -> Sequence[bytes]:
    return [HEAD[: drawn.randrange(1, len(HEAD))].encode()]


def _slowly(drawn: random.Random) -> Sequence[bytes]:
    return [bytes([byte]) for byte in _request(_chat(drawn))]


def _garbage(drawn: random.Random) -> Sequence[bytes]:
    return [drawn.randbytes(drawn.randrange(1, 5000))]


def _garbled(drawn: random.Random) -> Sequence[bytes]:
    sent = bytearray(_request(_chat(drawn, stream=True)))
    for _ in range(drawn.randrange(1, 6)):
        sent[drawn.randrange(len(sent))] = drawn.randrange(256)
    return [bytes(sent), b"\r\n\r\n"]


def _bad_chunks(drawn: random.Random) -> Sequence[bytes]:
    size = drawn.choice(("-1", "fffffffffffffffff", "zz", "5;x=y", "00000000005", ""))
    return [f"{HEAD}transfer-encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n".encode()]


def _two_lengths(drawn: random.Random) -> Sequence[bytes]:
    other = drawn.choice(("content-length: 5", "transfer-encoding: chunked", "transfer-encoding: identity"))
    return [_request(_chat(drawn), other)]


def _bad_length(drawn: random.Random) -> Sequence[bytes]:
    length = drawn.choice(("-1", "1e9", "0x10", "99999999999999999999", "1000001", " ", "5, 5"))
    return [f"{HEAD}content-length: {length}\r\n\r\n".encode(), b"x" * 100]


def _large_head(drawn: random.Random) -> Sequence[bytes]:
    return [HEAD.encode(), b"x-long: " + b"a" * drawn.randrange(1000, 200_000) + b"\r\n\r\n"]


def _many_headers(drawn: random.Random) -> Sequence[bytes]:
    return [GET[:-2] + b"".join(b"x-%d: 1\r\n" % number for number in range(drawn.randrange(100, 5000))) + b"\r\n"]


def _long_path(drawn: random.Random) -> Sequence[bytes]:
    return [b"GET /" + b"%00" * drawn.randrange(1, 20_000) + b" HTTP/1.1\r\nhost: x\r\n\r\n"]


def _bomb(drawn: random.Random) -> Sequence[bytes]:
    squeezed = zlib.compress(b" " * 20_000_000)
    return [_request(squeezed, f"content-encoding: {drawn.choice(('gzip', 'deflate', 'br', 'zstd'))}")]


def _deep(drawn: random.Random) -> Sequence[bytes]:
    deep = b"[" * drawn.randrange(100, 100_000)
    return [_request(b'{"model":"demo","messages":' + deep)]


def _too_long(drawn: random.Random) -> Sequence[bytes]:
    return [f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode(), b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 20


def _in_line(drawn: random.Random) -> Sequence[bytes]:
    return [GET * drawn.randrange(2, 50) + _request(_chat(drawn)) + _request(_chat(drawn, stream=True))]


def _expecting(drawn: random.Random) -> Sequence[bytes]:
    return [_request(b"", "expect: 100-continue", length=50)]


def _upgrade(drawn: random.Random) -> Sequence[bytes]:
    return [GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n\r\n"]


def _begun_stream(drawn: random.Random) -> Sequence[bytes]:
    return [_request(_chat(drawn, model="slow", stream=True))]


def _begun_reply(drawn: random.Random) -> Sequence[bytes]:
    return [_request(_chat(drawn, model="slow", max_tokens=300))]


def _odd_method(drawn: random.Random) -> Sequence[bytes]:
    method = drawn.choice((b"BREW", b"CONNECT", b"TRACE", b"get", b"PRI"))
    return [method + b" /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"]


def _old(drawn: random.Random) -> Sequence[bytes]:
    return [drawn.choice((b"GET /health\r\n\r\n", b"GET /health HTTP/1.0\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n"))]


KINDS: tuple[Bytes, ...] = (
    _half_a_body,
    _half_a_head,
    _slowly,
    _garbage,
    _garbled,
    _bad_chunks,
    _two_lengths,
    _bad_length,
    _large_head,
    _many_headers,
    _long_path,
    _bomb,
    _deep,
    _too_long,
    _in_line,
    _expecting,
    _upgrade,
    _begun_stream,
    _begun_reply,
    _odd_method,
    _old,
)
