"""What one process of the server can do, and from which token rate on several pay: `python -m tests.bench.capacity`.

`rate`: streams whose engine writes as fast as is asked for, what of it arrives, and the processor time that it takes.
`idle`: streams that think and say nothing, and what each of them costs in memory. The engines are scripted, so that
they take next to nothing, and the client throws away what it reads: it takes a core of its own.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import uvloop

from tests.chaos.clients import chat, client, metric
from tests.processes import ROOT, reasond, session_seconds
from tests.wire.storm import MIB, family_of, resident

SETTINGS = """
[server]
processes = {processes}
[engines.demo]
kind = "scripted"
model = "{tokenizer}"
length = 200
context_length = 1000000
token_delay = {delay}
[routes.demo]
engine = "demo"
family = "lhrm"
mode = "think"
"""
NEVER = 1e6  # seconds between two tokens
TOKENS, STREAMS = "reasond:generated_tokens_total", "reasond:num_requests_running"
OPENED_AT_ONCE = 100


class Reader(asyncio.Protocol):
    """Asks for one stream and throws it away."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self.begun.set_result(data[9:12])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(exc or ConnectionError("closed"))


@asynccontextmanager
async def streams(url: str, count: int) -> AsyncIterator[None]:
    """So many streams, each of which has begun."""
    host, port = url.removeprefix("http://").split(":")
    body = orjson.dumps(chat("demo", stream=True, ignore_eos=True))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    loop, opened = asyncio.get_running_loop(), []
    try:
        for start in range(0, count, OPENED_AT_ONCE):
            some = range(start, min(count, start + OPENED_AT_ONCE))
            made = await asyncio.gather(
                *(loop.create_connection(lambda: Reader(head.encode() + body), host, int(port)) for _ in some)
            )
            opened += [transport for transport, _ in made]
            statuses = await asyncio.gather(*(reader.begun for _, reader in made))
            assert set(statuses) == {b"200"}, statuses
        yield
    finally:
        for transport in opened:
            transport.abort()


async def served(url: str, leader: int, count: int, seconds: float) -> dict[str, Any]:
    """Tokens a second over so many streams, and the processor seconds a second of the whole server."""
    async with streams(url, count), client() as http:
        await asyncio.sleep(2.0)
        tokens, used, began = await metric(http, url, TOKENS), session_seconds(leader), time.perf_counter()
        await asyncio.sleep(seconds)
        tokens, took = await metric(http, url, TOKENS) - tokens, time.perf_counter() - began
        return {"tokens_a_second": round(tokens / took), "cores": round((session_seconds(leader) - used) / took, 2)}


async def idle(url: str, leader: int, counts: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Memory a stream, and the processor seconds a second while nothing is said but signs of life."""
    async with streams(url, OPENED_AT_ONCE):
        pass  # what is allocated once
    await asyncio.sleep(1.0)
    before, told = memory(leader), []
    for count in counts:
        async with streams(url, count), client() as http:
            assert await metric(http, url, STREAMS) + await metric(http, url, "reasond:num_requests_waiting") == count
            used, began = session_seconds(leader), time.perf_counter()
            await asyncio.sleep(seconds)
            cores = (session_seconds(leader) - used) / (time.perf_counter() - began)
            held = memory(leader)
            kib = round((held - before) / count / 1024, 1)
            told.append({"streams": count, "kib_a_stream": kib, "mib": round(held / MIB), "cores": round(cores, 2)})
        await asyncio.sleep(2.0)
    return told


@contextmanager
def server(processes: int, delay: float) -> Iterator[tuple[str, int]]:
    """The root URL of a server whose streams get a token each `delay` seconds, and its first process."""
    with tempfile.TemporaryDirectory() as folder:
        settings, tokenizer = Path(folder, "settings.toml"), ROOT / "demo" / "tokenizer"
        settings.write_text(SETTINGS.format(processes=processes, tokenizer=tokenizer, delay=delay))
        with reasond(settings, log=Path(folder, "log")) as (url, process):
            yield url, process.pid


def memory(leader: int) -> int:
    return sum(map(resident, family_of(leader)))


def main() -> None:
    top = argparse.ArgumentParser(prog="python -m tests.bench.capacity", description=__doc__)
    top.add_argument("what", choices=("rate", "idle"))
    top.add_argument("--processes", type=int, nargs="*", default=(1, 2))
    top.add_argument("--streams", type=int, nargs="*", default=None, help="rate: 200; idle: 100 1000 10000")
    top.add_argument("--rates", type=int, nargs="*", default=(2500, 5000, 10_000, 20_000, 40_000))
    top.add_argument("--seconds", type=float, default=8.0)
    options = top.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server ends with it
    if options.what == "idle":
        with server(1, NEVER) as (url, leader):
            for told in uvloop.run(idle(url, leader, options.streams or (100, 1000, 10_000), options.seconds)):
                print(orjson.dumps(told).decode(), flush=True)
        return
    for processes in options.processes:
        for count in options.streams or (200,):
            for rate in options.rates:
                with server(processes, count / rate) as (url, leader):
                    told = uvloop.run(served(url, leader, count, options.seconds))
                figures = {"processes": processes, "streams": count, "asked_for": rate, **told}
                print(orjson.dumps(figures).decode(), flush=True)


if __name__ == "__main__":
    main()
