"""One engine over several vLLM servers: which server a request goes to, and what happens when one is gone.

A request goes to the server that has read the longest beginning of its prompt, so that the segments of one reply and
the turns of one conversation find their prefix cached; but not to one with far more requests than the least busy. Until
its first token a request goes on to another server when its own fails.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, Self

from models.engines.base import (
    Delta,
    EngineDead,
    EngineError,
    FailoverStream,
    InvalidRequest,
    Prompt,
    Sampling,
)
from models.engines.remote import RemoteEngine

log = logging.getLogger(__name__)

BLOCK = 16  # tokens; vLLM caches prefixes in blocks of as many, or of a few times as many
BLOCKS = 32  # of this size; behind them prompts are compared in steps of
STEP = 512
PREFIXES = 200_000  # beginnings of prompts that are remembered, some 20 MB
SLACK = 8  # requests more than twice those of the least busy server that affinity is worth
CHECK_SECONDS = 5.0
CONNECT_SECONDS = 60.0  # a new server is asked for a token, and may have much to do

Urls = Callable[[], Sequence[str]]
Connect = Callable[[str], Awaitable[RemoteEngine]]
ServerState = Literal["up", "down", "draining"]


@dataclass(slots=True)
class Server:
    """One of the servers. `used` counts requests over all, so that equals are taken in turn. `check` is the last check
    of it: one that takes its time holds up no other's."""

    url: str
    engine: RemoteEngine | None = None
    state: ServerState = "down"
    used: int = 0
    check: asyncio.Task[Exception | None] | None = None

    @property
    def running(self) -> int:
        return self.engine.running() if self.engine is not None else 0


class PrefixMemory:
    """Who has read which beginnings of prompts last."""

    def __init__(self, size: int = PREFIXES) -> None:
        self._size = size
        self._readers: OrderedDict[int, str] = OrderedDict()

    def reader(self, marks: Sequence[int]) -> str | None:
        """Who has read the longest of these beginnings; None where nobody has read any."""
        read = takewhile(lambda reader: reader is not None, map(self._readers.get, marks))
        return next(iter(deque(read, maxlen=1)), None)

    def read(self, marks: Sequence[int], reader: str) -> None:
        for mark in marks:
            self._readers[mark] = reader
            self._readers.move_to_end(mark)
        while len(self._readers) > self._size:
            self._readers.popitem(last=False)


def prefix_marks(prompt: Prompt) -> list[int]:
    """A mark for each beginning of the prompt, the shortest first. Equal beginnings have equal marks."""
    ids, start, marks = prompt.token_ids, 0, [hash((prompt.adapter, prompt.cache_salt))]
    while (end := start + (BLOCK if start < BLOCK * BLOCKS else STEP)) <= len(ids):
        marks.append(hash((marks[-1], *ids[start:end])))
        start = end
    return marks[1:]


class RemoteFleet:
    """`urls` tells the servers that there should be, each time anew: one that it leaves out is drained."""

    def __init__(
        self, name: str, urls: Urls, connect: Connect, servers: Sequence[Server], check_seconds: float
    ) -> None:
        """At least one of the servers is up. To be made inside the event loop that it lives in."""
        up = [server.engine for server in servers if server.engine is not None]
        self.name = name
        self.tokenizer = up[0].tokenizer
        self.adapters = up[0].adapters
        self.native_budget = up[0].native_budget
        self.process_images = up[0].process_images
        self.context_length = min(engine.context_length for engine in up)
        self.servers = {server.url: server for server in servers}
        self._urls = urls
        self._connect = connect
        self._memory = PrefixMemory()
        self._requests = 0
        self._watching = asyncio.create_task(self._watch(check_seconds), name=f"servers of {name}")

    @classmethod
    async def start(cls, name: str, urls: Urls, connect: Connect, check_seconds: float) -> Self:
        """Raises what a server said that will never do, and what the first one said where none is up."""
        servers = [Server(url) for url in urls()]
        failures = [error for error in await asyncio.gather(*(_check(one, connect) for one in servers)) if error]
        wrong = next((error for error in failures if isinstance(error, ValueError)), None)
        if wrong is not None or len(failures) == len(servers):
            await _disconnect(servers)
            raise wrong or next(iter(failures), ValueError("no server is named"))
        return cls(name, urls, connect, servers, check_seconds)

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        return FailoverStream(lambda: self._begun(prompt, sampling))

    async def _begun(self, prompt: Prompt, sampling: Sampling) -> tuple[AsyncGenerator[Delta, None], Delta]:
        """The stream and the first delta of the first server that gives one."""
        tried: list[str] = []
        failure: EngineError = EngineDead(f"engine {self.name}: none of its servers is up")
        marks = prefix_marks(prompt)
        while (server := self._choose(marks, tried)) is not None:
            assert server.engine is not None
            tried.append(server.url)
            self._requests += 1
            server.used = self._requests
            self._memory.read(marks, server.url)
            deltas = server.engine.generate(prompt, sampling)
            try:
                return deltas, await anext(deltas)
            except InvalidRequest:
                raise
            except EngineDead as error:
                _down(server, error)
                failure = error
            except EngineError as error:
                failure = error
        raise failure

    def _choose(self, marks: Sequence[int], tried: Sequence[str]) -> Server | None:
        up = {url: one for url, one in self.servers.items() if one.state == "up" and url not in tried}
        if not up:
            return None
        least = min(up.values(), key=lambda server: (server.running, server.used))
        reader = up.get(self._memory.reader(marks) or "")
        return reader if reader is not None and reader.running <= 2 * least.running + SLACK else least

    def running(self) -> int:
        return sum(server.running for server in self.servers.values())

    async def check(self) -> None:
        if not any(server.state == "up" for server in self.servers.values()):
            raise EngineDead(f"engine {self.name}: none of its servers is up")

    async def close(self) -> None:
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        await _disconnect(self.servers.values())

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                wanted = self._urls()
            except OSError as error:
                log.warning("engine %s keeps its servers: %s", self.name, error)
                wanted = [url for url, server in self.servers.items() if server.state != "draining"]
            for url in wanted:
                if self.servers.setdefault(url, Server(url)).state == "draining":
                    self.servers[url].state = "down"
            for server in [server for url, server in self.servers.items() if url not in wanted]:
                await self._drain(server)
            for server in (self.servers[url] for url in wanted):
                if server.check is None or server.check.done():
                    server.check = asyncio.create_task(_check(server, self._connect, self.context_length))

    async def _drain(self, server: Server) -> None:
        """Nothing new goes to the server; when it has nothing left, it is forgotten."""
        server.state = "draining"
        if not server.running:
            del self.servers[server.url]
            await _disconnect([server])


async def _check(server: Server, connect: Connect, context_length: int = 0) -> Exception | None:
    """Brings its state up to date, and says why it is down."""
    try:
        if server.engine is None:
            async with asyncio.timeout(CONNECT_SECONDS):
                server.engine = await connect(server.url)
        async with asyncio.timeout(CHECK_SECONDS):
            if server.state == "down":
                await server.engine.verify()
            await server.engine.check()
        if server.engine.context_length < context_length:
            raise ValueError(f"{server.url} has a shorter context than the servers before it")
    except (EngineError, ValueError, TimeoutError) as error:
        _down(server, error)
        return error
    if server.state == "down":
        log.info("%s is up", server.url)
        server.state = "up"
    return None


def _down(server: Server, error: Exception) -> None:
    if server.state == "up":
        log.warning("%s is down: %s", server.url, str(error) or "no answer in time")
        server.state = "down"


async def _disconnect(servers: Iterable[Server]) -> None:
    for server in servers:
        if server.check is not None:
            server.check.cancel()
        if server.engine is not None:
            await server.engine.close()
