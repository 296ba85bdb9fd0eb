"""One run over several client processes, for loads that are too much for one. One clock per machine: records merge.

Each process gets its share of requests and slots, opens its connections, says that it is ready, and starts when it is
told to. `multiprocessing` lends its pipes, but not its processes: those would run the caller's script again.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import uvloop

from loadtest.load.arrivals import ArrivalPlan, Concurrent, Trace, describe
from loadtest.load.run import run
from loadtest.records import LoadRequest, LoadTarget, RunProgress, RunResult

_WORKER: Final = "import sys; from loadtest.load.processes import worker; worker(int(sys.argv[1]))"
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
    with ThreadPoolExecutor(processes) as threads, ExitStack() as running:
        workers = [running.enter_context(_WorkerProcess(threads)) for _ in dealt]
        for worker, share in zip(workers, dealt, strict=True):
            worker.pipe.send((target, share, options))
        await asyncio.gather(*(worker.receive() for worker in workers))
        begin_ns = perf_counter_ns() + _LEAD_NS
        for worker, share in zip(workers, dealt, strict=True):
            worker.pipe.send(begin_ns + share.after_ns)
        results = await asyncio.gather(*(worker.result(workers, live) for worker in workers))
    return merged(results, requests, arrivals, begin_ns)


class _WorkerProcess:
    """This side of one client process, which runs until the block ends."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self.live = RunProgress()
        ours, theirs = socket.socketpair()
        self.pipe = Connection(ours.detach())
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
        with theirs:
            command = (sys.executable, "-c", _WORKER, str(theirs.fileno()))
            environment = {**os.environ, "PYTHONPATH": path}
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)

    def __enter__(self) -> "_WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self.pipe.close()

    async def receive(self) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.pipe.recv)
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("a client process ended before its run did") from error

    async def result(self, all_workers: Sequence["_WorkerProcess"], live: RunProgress | None) -> RunResult:
        while isinstance(message := await self.receive(), RunProgress):
            self.live = message
            if live is not None:
                live.become([worker.live for worker in all_workers])
        assert isinstance(message, RunResult)
        return message


def worker(descriptor: int) -> None:
    """The other side: what a client process runs."""
    with Connection(descriptor) as pipe:
        uvloop.run(_work(pipe, *pipe.recv()))


async def _work(pipe: Connection, target: LoadTarget, share: WorkerShare, options: Mapping[str, Any]) -> None:
    live = RunProgress()

    async def begin() -> int:
        pipe.send("ready")
        return int(pipe.recv())

    reporting = asyncio.create_task(_report(pipe, live))
    result = await run(target, share.requests, share.arrivals, live=live, begin=begin, **options)
    reporting.cancel()
    pipe.send(result)


async def _report(pipe: Connection, live: RunProgress) -> None:
    while True:
        await asyncio.sleep(0.5)
        if live.started:
            pipe.send(replace(live, latencies_ns=live.latencies_ns[-100:]))
