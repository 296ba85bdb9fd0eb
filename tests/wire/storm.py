"""A thousand requests of which a third leave midway, and what a server holds before and after, seen from outside."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """What a server holds: requests by its own count and by its engines', memory by process, descriptors, tasks."""

    requests: float
    engine_requests: float
    aborted: float
    tasks: float
    descriptors: int
    rss: dict[str, int]  # bytes, by the process's name and id

    def __str__(self) -> str:
        memory = "  ".join(f"{name} {size / MIB:.1f} MiB" for name, size in self.rss.items())
        return (
            f"requests {self.requests:.0f}  in engine {self.engine_requests:.0f}  aborted {self.aborted:.0f}  "
            f"tasks {self.tasks:.0f}  descriptors {self.descriptors}  {memory}"
        )


@dataclass(frozen=True, slots=True)
class Server:
    """`reasond serve` in a process of its own."""

    url: str
    pid: int

    def held(self) -> Held:
        samples: Counter[str] = Counter()
        for family in text_string_to_metric_families(httpx.get(self.url + "/metrics", timeout=30).text):
            for sample in family.samples:
                samples[sample.name] += sample.value  # over routes, engines and causes
        return Held(
            requests=samples["reasond:num_requests_running"] + samples["reasond:num_requests_waiting"],
            engine_requests=samples["reasond:engine_requests"] + samples["vllm:num_requests_running"],
            aborted=samples["reasond:request_aborts_total"],
            tasks=samples["reasond:asyncio_tasks"],
            descriptors=len(os.listdir(f"/proc/{self.pid}/fd")),
            rss={f"{name_of(pid)} {pid}": resident(pid) for pid in family_of(self.pid)},
        )

    def settled(self, seconds: float = 20.0) -> Held:
        """What is held when nothing runs any more, or after that many seconds."""
        deadline = time.monotonic() + seconds
        while (held := self.held()).requests + held.engine_requests and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)  # connections are closed a little after their requests
        return self.held()


def family_of(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family_of(int(child))


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def reasond_serve(settings: Path, seconds: float = 300.0) -> Iterator[Server]:
    """`reasond serve` on a free port of the loopback, once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "server.cli", "serve", str(settings), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "REASOND_API_KEYS"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        _until_ready(server.url, process, seconds)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _until_ready(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            if httpx.get(url + "/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} was not ready within {seconds} s")


def body_of(number: int, tokens: int) -> dict[str, Any]:
    """Requests of every kind: forced and chosen modes, with and without a threshold, one choice and two."""
    body: dict[str, Any] = {
        "model": ("demo", "demo-threshold", "demo-think", "demo-direct")[number % 4],
        "messages": [{"role": "user", "content": f"compute 3 + {number % 10}"}],
        "max_tokens": tokens,
        "ignore_eos": True,  # long enough to leave in the middle of
        "seed": number,
    }
    return body | ({"n": 2} if number % 8 == 0 else {})


async def storm(url: str, requests: int, tokens: int, *, concurrency: int = 64, leaving: bool = True) -> Counter[str]:
    """Sends `requests` for `tokens` tokens each, a third of which leave midway, and counts how they went.

    Those that leave: five of six hang up after some events of a stream, one of six while it waits for a whole reply.
    Without `leaving` nobody does: the same load, to compare with.
    """
    drawn = random.Random(0)
    numbers = iter(range(requests))
    outcomes: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)

    async def worker(client: httpx.AsyncClient) -> None:
        for number in numbers:
            if number % 3 or not leaving:
                outcomes[await whole(client, body_of(number, tokens), stream=number % 2 == 0)] += 1
            elif number % 18:
                outcomes[await hang_up(client, body_of(number, tokens), events=drawn.randint(1, tokens // 4))] += 1
            else:
                outcomes[await lose_patience(client, body_of(number, tokens), seconds=drawn.uniform(0.01, 0.1))] += 1

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as client, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker(client))
    return outcomes


async def weathered(server: Server, requests: int, warm_up: int, tokens: int) -> tuple[Held, Counter[str], Held]:
    """What the server held before a storm, how the storm went, and what the server holds when it is over.

    A smaller storm goes before, so that pools and caches that fill once are full.
    """
    await storm(server.url, warm_up, tokens)
    before = await asyncio.to_thread(server.settled)
    began = time.perf_counter()
    outcomes = await storm(server.url, requests, tokens)
    seconds = time.perf_counter() - began
    after = await asyncio.to_thread(server.settled)
    print(f"\nbefore  {before}\nafter   {after}\n{dict(outcomes)} in {seconds:.1f} s")
    return before, outcomes, after


def nothing_left(
    before: Held, outcomes: Counter[str], after: Held, *, requests: int, memory: int, worker_memory: int = 0
) -> None:
    """Asserts that all is as before; memory, in bytes, may differ by as much as a busy allocator's does.

    `worker_memory` is for vLLM's worker, which holds weights and cache and knows no connections. Its heap grows under
    any load, as much when nobody leaves, by about half as much with every further thousand requests.
    """
    leaving = len(range(0, requests, 3))
    midway, late = outcomes["left midway"], outcomes["ended before it could be left"]
    assert (outcomes["whole"], midway + late) == (requests - leaving, leaving)
    assert midway > 0.8 * leaving
    assert after.aborted - before.aborted > 0.3 * leaving  # a server ahead of its clients had ended the other replies
    assert (after.requests, after.engine_requests) == (0, 0)
    assert after.tasks <= before.tasks
    assert after.descriptors <= before.descriptors
    assert after.rss.keys() == before.rss.keys()
    for name, size in after.rss.items():
        assert size - before.rss[name] < (worker_memory if name.startswith("VLLM::Worker") else memory), name


PATH = "/v1/chat/completions"


async def whole(client: httpx.AsyncClient, body: dict[str, Any], *, stream: bool) -> str:
    answer = await client.post(PATH, json={**body, "stream": stream})
    complete = answer.text.endswith("data: [DONE]\n\n") if stream else "usage" in answer.json()
    return "whole" if answer.status_code == 200 and complete else f"failed with {answer.status_code}"


async def hang_up(client: httpx.AsyncClient, body: dict[str, Any], *, events: int) -> str:
    async with client.stream("POST", PATH, json={**body, "stream": True}) as answer:
        seen = 0
        async for line in answer.aiter_lines():
            seen += line.startswith("data: ")
            if seen >= events:
                return "left midway"
    return "ended before it could be left"


async def lose_patience(client: httpx.AsyncClient, body: dict[str, Any], *, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            await client.post(PATH, json=body)
    except TimeoutError:
        return "left midway"
    return "ended before it could be left"
