"""Clients that keep a server busy, and what became of each of their requests."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

End = Literal["whole", "error event", "refused", "cut", "hung"]
HUNG_SECONDS = 240.0


@dataclass(frozen=True)
class Outcome:
    """`status` and `code` are those of a refusal or of the error event; `began` and `seconds` the loop's time."""

    route: str
    end: End
    began: float
    seconds: float
    first: float | None = None
    status: int = 200
    code: str = ""
    retry_after: str = ""
    events: int = 0


@dataclass
class Clients:
    """`count` clients in turn over the bodies; each asks again as soon as its reply is over."""

    url: str
    bodies: Sequence[Mapping[str, Any]]
    headers: Mapping[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    streaming: int = 0

    @asynccontextmanager
    async def busy(self, count: int) -> AsyncIterator["Clients"]:
        """They ask until the block ends; then what runs is waited for."""
        over = asyncio.Event()
        async with client() as http:
            tasks = [asyncio.create_task(self._loop(http, number, over)) for number in range(count)]
            try:
                yield self
            finally:
                over.set()
                await asyncio.gather(*tasks)

    async def _loop(self, http: httpx.AsyncClient, number: int, over: asyncio.Event) -> None:
        for body in itertools.cycle([*self.bodies[number % len(self.bodies) :], *self.bodies]):
            if over.is_set():
                return
            outcome = await self.ask(http, body)
            if outcome.end in ("refused", "cut"):
                await asyncio.sleep(0.2)

    async def ask(self, http: httpx.AsyncClient, body: Mapping[str, Any]) -> Outcome:
        outcome = await ask(http, self.url, body, self.headers, self._streams)
        self.outcomes.append(outcome)
        return outcome

    def _streams(self, change: int) -> None:
        self.streaming += change

    def counts(self) -> dict[str, int]:
        return dict(Counter(f"{one.end} {one.code}".strip() for one in self.outcomes))

    def since(self, began: float) -> list[Outcome]:
        return [one for one in self.outcomes if one.began >= began]


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False, verify=False)


async def ask(
    http: httpx.AsyncClient,
    url: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    streams: Callable[[int], None] = lambda change: None,
) -> Outcome:
    """One streamed chat request, to its end. `streams` hears of it while text arrives."""
    clock = asyncio.get_running_loop().time
    began, events, code, done, status, first, retry = clock(), 0, "", False, 0, None, ""

    def outcome(end: End) -> Outcome:
        return Outcome(str(body["model"]), end, began, clock() - began, first, status, code, retry, events)

    try:
        async with (
            asyncio.timeout(HUNG_SECONDS),
            http.stream(
                "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, headers=dict(headers or {})
            ) as answer,
        ):
            status = answer.status_code
            if status != 200:
                code = orjson.loads(await answer.aread())["error"]["code"]
                retry = answer.headers.get("retry-after", "")
                return outcome("refused")
            streams(1)
            try:
                async for line in answer.aiter_lines():
                    if not line:
                        continue
                    events, first = events + 1, clock() - began if first is None else first
                    done = done or line == "data: [DONE]"
                    if line.startswith('data: {"error"'):
                        code = orjson.loads(line[6:])["error"]["code"]
            finally:
                streams(-1)
    except TimeoutError:
        return outcome("hung")
    except httpx.HTTPError as error:
        if done and code:  # it was told, though the connection was closed without ceremony
            return outcome("error event")
        code = type(error).__name__
        return outcome("cut")
    return outcome("error event" if code else "whole" if done else "cut")


async def lines(
    http: httpx.AsyncClient, url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """The lines of a stream that say something."""
    async with http.stream("POST", url, json={**body, "stream": True}, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line:
                yield line


async def created(http: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A response of `/v1/responses`, as it is when the server answers."""
    answer = await http.post(f"{url}/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def metric(http: httpx.AsyncClient, url: str, name: str) -> float:
    """The sum of a metric's series."""
    families = text_string_to_metric_families((await http.get(f"{url}/metrics")).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def chat(model: str, text: str = "what is 2+2?", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}
