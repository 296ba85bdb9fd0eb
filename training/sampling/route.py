"""Replies of a served route to many questions, over HTTP."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import httpx
import orjson

from training.config.sections import RouteSection, SampleRecipe, Way
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.samples import SampledReply, Served

TRANSIENT = (429, 500, 502, 503, 504)


def replies_of(recipe: SampleRecipe, questions: Sequence[TrainingQuestion]) -> Iterator[list[SampledReply]]:
    """The replies to each question, unscored, in order; `concurrency` of them are under way."""
    route = recipe.route
    assert route is not None
    key = os.environ.get(route.key_env, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with asyncio.Runner() as runner:  # when it closes, what is under way is cancelled
        free = asyncio.Semaphore(route.concurrency)
        client = httpx.AsyncClient(headers=headers, timeout=route.timeout, limits=httpx.Limits(max_connections=None))
        waiting: deque[asyncio.Task[list[SampledReply]]] = deque()
        try:
            for question in questions:
                waiting.append(runner.get_loop().create_task(_to_question(question, recipe, client, free)))
                if len(waiting) > 2 * route.concurrency:
                    yield runner.run(_result(waiting.popleft()))
            while waiting:
                yield runner.run(_result(waiting.popleft()))
        finally:
            for task in waiting:
                task.cancel()
            runner.run(client.aclose())


async def _result(task: asyncio.Task[list[SampledReply]]) -> list[SampledReply]:
    return await task


async def _to_question(
    question: TrainingQuestion, recipe: SampleRecipe, client: httpx.AsyncClient, free: asyncio.Semaphore
) -> list[SampledReply]:
    async def one(number: int, way: Way) -> SampledReply:
        async with free:
            return await _reply(question, recipe, client, number, way)

    return await asyncio.gather(*(one(i, way) for i, way in enumerate(recipe.asked)))


async def _reply(
    question: TrainingQuestion, recipe: SampleRecipe, client: httpx.AsyncClient, number: int, way: Way
) -> SampledReply:
    assert recipe.route is not None
    threshold = 1.0 if way.decider and recipe.held_direct else None
    wish = {"mode": "auto" if way.decider else way.mode, "budget": way.budget, "think_threshold": threshold}
    wish = {name: value for name, value in wish.items() if value is not None}
    body: dict[str, Any] = {
        "model": way.decider or recipe.route.model,
        "messages": question.messages,
        "max_tokens": recipe.max_new_tokens,
        "seed": hash_seed(recipe.seed, question.text, number),
        "stream": True,
        "stream_options": {"include_usage": True},
        **({} if recipe.temperature is None else {"temperature": recipe.temperature}),
        **({"reasond": wish} if wish else {}),
    }
    said = await _ask(client, recipe.route, body)
    return SampledReply(
        question=question,
        asked=way.mode,
        mode=said.record.get("mode"),
        budget=way.budget,
        thinking=said.thinking,
        reply=said.answer,
        tokens=said.tokens,
        complete=said.finish == "stop",
        score=0.0,
        served=said.as_served(way.decider),
    )


class StreamedReply:
    """A reply as its events tell it."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.thinking = self.answer = self.trouble = ""
        self.finish: str | None = None
        self.tokens = 0
        self.record: dict[str, Any] = {}
        self.heard: dict[str, float] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        if "error" in event:
            self.trouble = str(event["error"].get("message"))
        self.tokens = (event.get("usage") or {}).get("completion_tokens", self.tokens)
        self.record |= event.get("reasond") or {}
        for choice in event.get("choices", ()):
            self.finish = choice.get("finish_reason") or self.finish
            delta = choice.get("delta") or {}
            thinking, answer = delta.get("reasoning") or "", delta.get("content") or ""
            self.thinking += thinking
            self.answer += answer
            if thinking or answer:
                self.heard.setdefault("first", time.perf_counter() - self.began)
            if answer:
                self.heard.setdefault("answer", time.perf_counter() - self.began)

    def as_served(self, decider: str | None) -> Served:
        """The score of a calibrated route's decider is what it found, not what the calibration made of it."""
        seconds = time.perf_counter() - self.began
        first = self.heard.get("first", seconds)
        score = self.record.get("score", self.record.get("p_think")) if "threshold" in self.record else None
        times = (round(time, 4) for time in (first, self.heard.get("answer", seconds), seconds))
        return Served(decider, score, self.record.get("decision_tokens", 0), "held_seconds" in self.record, *times)


async def _ask(client: httpx.AsyncClient, route: RouteSection, body: Mapping[str, Any]) -> StreamedReply:
    """The reply. UserError where the route refuses, or does not answer however often it is asked."""
    trouble = ""
    for attempt in range(route.retries + 1):
        said = StreamedReply()
        try:
            async with client.stream("POST", f"{route.url}/v1/chat/completions", json=body) as response:
                if not response.is_success:
                    said.trouble = f"{response.status_code}: {(await response.aread()).decode(errors='replace')[:500]}"
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        said.take(orjson.loads(line.removeprefix("data: ")))
        except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
            said.trouble = repr(error)
        else:
            if said.finish is not None and not said.trouble:
                return said
            if response.status_code not in (200, *TRANSIENT):
                trouble = said.trouble
                break
        trouble = said.trouble or "the stream broke off"
        if attempt < route.retries:
            await asyncio.sleep(2**attempt)
    raise UserError(f"route {body['model']} at {route.url}: {trouble}")


def hash_seed(seed: int, text: str, number: int) -> int:
    """A seed for one reply, the same whenever it is drawn."""
    return int.from_bytes(sha256(f"{seed}:{number}:{text}".encode()).digest()[:4], "big") >> 1
