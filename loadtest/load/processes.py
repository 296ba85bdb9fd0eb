"""One run over several client processes, for loads that are too much for one. One clock per machine: records merge.

Each process gets its share of requests and slots, opens its connections, says that it is ready, and starts when it is
told to. Frames between processes are eight bytes of length and a pickle; both ends are this file.
"""

import asyncio
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import uvloop

from loadtest.load.arrivals import ArrivalPlan, Concurrent, Trace, describe
from loadtest.load.run import run
from loadtest.records import LoadRequest, LoadTarget, RunProgress, RunResult

_WORKER: Final = "from loadtest.load.processes import worker; worker()"
_LEAD_NS: Final = 100_000_000
"""From the moment when all are ready to the start, so that the last one has heard it by then."""


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one process does. Its own plan begins `after_ns` after the common start."""

    requests: Sequence[LoadRequest]
    arrivals: ArrivalPlan
    after_ns: int = 0


def shares(requests: Sequence[LoadRequest], arrivals: ArrivalPlan, processes: int) -> list[WorkerShare]:
    """Deals requests out in turn: a closed loop's slots with them; an open loop's arrivals keep their times."""
    if isinstance(arrivals, Concurrent):
        slots = [len(range(process, arrivals.concurrency, processes)) for process in range(processes)]
        return [WorkerShare(requests[i::processes], replace(arrivals, concurrency=slots[i])) for i in range(processes)]
    offsets = arrivals.offsets(requests)
    timed = [replace(request, at=offset) for request, offset in zip(requests, offsets, strict=True)]
    return [WorkerShare(timed[i::processes], Trace(), int(offsets[i] * 1e9)) for i in range(processes)]


def merged(
    results: Sequence[RunResult], requests: Sequence[LoadRequest], arrivals: ArrivalPlan, start_ns: int
) -> RunResult:
    """One result of all the shares' results, records by scheduled start."""
    end_ns = max(result.end_ns for result in results)
    busy = sum(result.cpu_share * result.seconds for result in results)
    closed = isinstance(arrivals, Concurrent)
    return replace(
        results[0],
        arrivals=describe(arrivals),
        rate=None if isinstance(arrivals, Concurrent) else arrivals.rate,
        concurrency=sum(result.concurrency or 0 for result in results) or None if closed else results[0].concurrency,
        records=tuple(sorted((one for result in results for one in result.records), key=lambda one: one.scheduled_ns)),
        start_ns=start_ns,
        end_ns=end_ns,
        cpu_share=busy / ((end_ns - start_ns) / 1e9),
        processes=len(results),
    )


async def run_in(
    processes: int,
    target: LoadTarget,
    requests: Sequence[LoadRequest],
    arrivals: ArrivalPlan,
    *,
    live: RunProgress | None = None,
    **options: Any,
) -> RunResult:
    """`run`, in this process for one, in as many others for more. Raises RuntimeError if one of those fails."""
    slots = arrivals.concurrency if isinstance(arrivals, Concurrent) else len(requests)
    processes = min(processes, slots, len(requests))
    if processes <= 1:
        return await run(target, requests, arrivals, live=live, **options)
    if options.get("max_concurrency") is not None:
        options["max_concurrency"] = max(1, options["max_concurrency"] // processes)
    dealt = shares(requests, arrivals, processes)
    workers: list[_WorkerProcess] = []
    try:
        for share in dealt:
            workers.append(await _WorkerProcess.start())
            workers[-1].write({"target": target, "share": share, "options": options})
        await asyncio.gather(*(worker.read() for worker in workers))
        begin_ns = perf_counter_ns() + _LEAD_NS
        for worker, share in zip(workers, dealt, strict=True):
            worker.write(begin_ns + share.after_ns)
        results = await asyncio.gather(*(worker.result(workers, live) for worker in workers))
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
    return merged(results, requests, arrivals, begin_ns)


class _WorkerProcess:
    """This side of one client process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._to, self._from = process, process.stdin, process.stdout
        self._finished = False
        self.live = RunProgress()

    @classmethod
    async def start(cls) -> "_WorkerProcess":
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": path}
        command = (sys.executable, "-c", _WORKER)
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment))

    def write(self, value: object) -> None:
        self._to.write(_frame(value))

    async def read(self) -> Any:
        try:
            size = int.from_bytes(await self._from.readexactly(8))
            return pickle.loads(await self._from.readexactly(size))
        except asyncio.IncompleteReadError as error:
            raise RuntimeError("a client process ended before its run did") from error

    async def result(self, all_workers: Sequence["_WorkerProcess"], live: RunProgress | None) -> RunResult:
        while isinstance(said := await self.read(), RunProgress):
            self.live = said
            if live is not None:
                live.become([worker.live for worker in all_workers])
        assert isinstance(said, RunResult)
        self._finished = True
        return said

    async def stop(self) -> None:
        """Waits for a process that has given its result, ends one that has not."""
        if not self._finished and self._process.returncode is None:
            self._process.terminate()
        self._to.close()
        await self._process.wait()


def _frame(value: object) -> bytes:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(8) + data


def worker() -> None:
    """The other side: what a client process runs."""
    work = _take()
    uvloop.run(_work(**work))


def _take() -> Any:
    head = sys.stdin.buffer.read(8)
    return pickle.loads(sys.stdin.buffer.read(int.from_bytes(head)))


def _give(value: object) -> None:
    sys.stdout.buffer.write(_frame(value))
    sys.stdout.buffer.flush()


async def _work(target: LoadTarget, share: WorkerShare, options: Mapping[str, Any]) -> None:
    live = RunProgress()

    async def begin() -> int:
        _give("ready")
        return int(_take())

    reporting = asyncio.create_task(_report(live))
    result = await run(target, share.requests, share.arrivals, live=live, begin=begin, **options)
    reporting.cancel()
    _give(result)


async def _report(live: RunProgress) -> None:
    while True:
        await asyncio.sleep(0.5)
        if live.started:
            _give(replace(live, latencies_ns=live.latencies_ns[-100:]))
