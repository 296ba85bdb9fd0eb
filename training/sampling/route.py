"""Replies of a served route to many questions, over HTTP."""

import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import httpx

from models.formats.reasoning import Mode
from training.config.sections import RouteSection, SampleRecipe
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.samples import SampledReply

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
    async def one(number: int, mode: Mode | None, budget: int | None) -> SampledReply:
        async with free:
            return await _reply(question, recipe, client, number, mode, budget)

    return await asyncio.gather(*(one(i, mode, budget) for i, (mode, budget) in enumerate(recipe.asked)))


async def _reply(
    question: TrainingQuestion,
    recipe: SampleRecipe,
    client: httpx.AsyncClient,
    number: int,
    mode: Mode | None,
    budget: int | None,
) -> SampledReply:
    assert recipe.route is not None
    wish = {name: value for name, value in (("mode", mode), ("budget", budget)) if value is not None}
    body: dict[str, Any] = {
        "model": recipe.route.model,
        "messages": question.messages,
        "max_tokens": recipe.max_new_tokens,
        "temperature": recipe.temperature,
        "seed": hash_seed(recipe.seed, question.text, number),
        **({"reasond": wish} if wish else {}),
    }
    answer = await _post(client, recipe.route, body)
    choice = answer["choices"][0]
    return SampledReply(
        question=question,
        asked=mode,
        mode=(answer.get("reasond") or {}).get("mode"),
        budget=budget,
        thinking=choice["message"].get("reasoning") or "",
        reply=choice["message"].get("content") or "",
        tokens=answer["usage"]["completion_tokens"],
        complete=choice["finish_reason"] == "stop",
        score=0.0,
    )


async def _post(client: httpx.AsyncClient, route: RouteSection, body: dict[str, Any]) -> Any:
    """The response. UserError where the route refuses, or does not answer however often it is asked."""
    trouble = ""
    for attempt in range(route.retries + 1):
        try:
            response = await client.post(f"{route.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            trouble = repr(error)
        else:
            if response.is_success:
                return response.json()
            trouble = f"{response.status_code}: {response.text[:500]}"
            if response.status_code not in TRANSIENT:
                break
        if attempt < route.retries:
            await asyncio.sleep(2**attempt)
    raise UserError(f"route {route.model} at {route.url}: {trouble}")


def hash_seed(seed: int, text: str, number: int) -> int:
    """A seed for one reply, the same whenever it is drawn."""
    return int.from_bytes(sha256(f"{seed}:{number}:{text}".encode()).digest()[:4], "big") >> 1
