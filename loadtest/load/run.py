"""Runs a workload against a target: arrivals decide when, the client carries it, every request leaves a record."""

import asyncio
import gc
import math
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Final

import orjson

from loadtest.load.arrivals import ArrivalPlan, Concurrent, describe
from loadtest.load.client import LoadClient
from loadtest.load.stream import record
from loadtest.records import HttpExchange, LoadRequest, LoadTarget, RequestRecord, RunProgress, RunResult

_KEEP_RAW: Final = 256 * 2**20
"""Bytes of replies kept raw until the run is over; past it, replies are read while it goes on, at its expense."""


def encode(request: LoadRequest, target: LoadTarget) -> bytes:
    """The body to send. Asks for usage where it streams; anything in `LoadRequest.body` has the last word."""
    body: dict[str, Any] = {"model": request.route or target.model, "messages": request.messages}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body | dict(request.body))


async def run(
    target: LoadTarget,
    requests: Sequence[LoadRequest],
    arrivals: ArrivalPlan,
    *,
    timeout: float = 600.0,
    max_seconds: float | None = None,
    max_concurrency: int | None = None,
    live: RunProgress | None = None,
    begin: Callable[[], Awaitable[int]] | None = None,
) -> RunResult:
    """One run in this process, on the running event loop (uvloop is the one to use: `loadtest.cli`, `uvloop.run`).

    No request starts later than `max_seconds` after the first. `max_concurrency` holds open-loop requests back while so
    many are in flight; their records show it (start after schedule). `begin` is called when all is ready and tells the
    moment of the start, for several processes side by side. Raises OSError if no connection can be opened beforehand
    (closed loop).
    """
    bodies = [encode(request, target) for request in requests]
    client = LoadClient(target, timeout)
    slots = None if max_concurrency is None else asyncio.Semaphore(max_concurrency)
    seconds = math.inf if max_seconds is None else max_seconds
    runner = _Runner(client, requests, bodies, live or RunProgress(), seconds, slots)
    raise_file_limit()
    if isinstance(arrivals, Concurrent):
        await client.warm(min(arrivals.concurrency, len(requests)))
    try:
        with undisturbed():
            start_ns = perf_counter_ns() if begin is None else await begin()
            started_at, cpu = time.time(), time.process_time_ns()
            await runner.go(arrivals, start_ns)
            end_ns = perf_counter_ns()
            cpu = time.process_time_ns() - cpu
    finally:
        await client.close()
    return RunResult(
        target=target,
        arrivals=describe(arrivals),
        rate=None if isinstance(arrivals, Concurrent) else arrivals.rate,
        concurrency=arrivals.concurrency if isinstance(arrivals, Concurrent) else max_concurrency,
        records=tuple(runner.records()),
        started_at=started_at,
        start_ns=start_ns,
        end_ns=end_ns,
        cpu_share=cpu / max(1, end_ns - start_ns),
    )


@dataclass(slots=True)
class _Runner:
    """The state of one run: which request is next, and what has come back. `slots` bound an open loop."""

    client: LoadClient
    requests: Sequence[LoadRequest]
    bodies: Sequence[bytes]
    live: RunProgress
    max_seconds: float
    slots: asyncio.Semaphore | None
    _raw: list[tuple[int, int, HttpExchange]] = field(default_factory=list)
    _raw_bytes: int = 0
    _read: list[tuple[int, RequestRecord]] = field(default_factory=list)

    async def go(self, arrivals: ArrivalPlan, begin_ns: int) -> None:
        self.live.planned += len(self.requests)
        if isinstance(arrivals, Concurrent):
            await self._closed_loop(arrivals, begin_ns)
        else:
            await self._open_loop(arrivals.offsets(self.requests), begin_ns)

    async def _closed_loop(self, arrivals: Concurrent, begin_ns: int) -> None:
        numbers = iter(range(len(self.requests)))

        async def slot(first_start: float) -> None:
            scheduled_ns = begin_ns + int(first_start * 1e9)
            await sleep_until(scheduled_ns)
            for number in numbers:
                if scheduled_ns - begin_ns >= self.max_seconds * 1e9:
                    return
                await self._one(number, scheduled_ns)
                scheduled_ns = perf_counter_ns()

        await asyncio.gather(*(slot(start) for start in arrivals.first_starts()))

    async def _open_loop(self, offsets: Sequence[float], begin_ns: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number, offset in enumerate(offsets):
                if offset >= self.max_seconds:
                    return
                scheduled_ns = begin_ns + int(offset * 1e9)
                await sleep_until(scheduled_ns)
                if self.slots is not None:
                    await self.slots.acquire()
                group.create_task(self._one(number, scheduled_ns))

    async def _one(self, number: int, scheduled_ns: int) -> None:
        live = self.live
        live.started += 1
        exchange = await self.client.send(self.bodies[number])
        if self.slots is not None:
            self.slots.release()
        live.finished += 1
        live.failed += exchange.error is not None or exchange.status != 200
        live.latencies_ns.append(exchange.end_ns - exchange.start_ns)
        self._raw_bytes += exchange.size
        self._raw.append((number, scheduled_ns, exchange))
        if self._raw_bytes > _KEEP_RAW:
            self._read += self._digest()

    def _digest(self) -> Iterator[tuple[int, RequestRecord]]:
        raw, self._raw, self._raw_bytes = self._raw, [], 0
        for number, scheduled_ns, exchange in raw:
            yield number, record(self.requests[number], scheduled_ns, exchange)

    def records(self) -> list[RequestRecord]:
        """In the order of the workload."""
        self._read += self._digest()
        return [one for _, one in sorted(self._read, key=lambda pair: pair[0])]


async def sleep_until(at_ns: int) -> None:
    """Not before, and at most about a millisecond after: event loops round their timers to milliseconds."""
    while (remaining_ns := at_ns - perf_counter_ns()) > 0:  # noqa: ASYNC110 (a clock has no event to wait for)
        await asyncio.sleep(remaining_ns / 1e9)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection meanwhile: with a million kept pieces a full one stops every stream for a second."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def raise_file_limit() -> None:
    """As many open connections as the system allows this process without asking anyone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
