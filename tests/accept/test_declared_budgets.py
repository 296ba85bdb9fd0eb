"""Declared budgets through the server against the offline evaluation of the same model, and the estimated time.

Offline figures come with a 95 % bootstrap interval over their questions. The questions asked here are other ones of the
same kind, so a figure measured here has a sampling error of its own: it gets an interval in the same way, and the two
intervals must meet. A figure that is off in either direction, by more than both samples allow, fails.

How lengths follow a budget that is written into the model's field is the model's own doing, so for the slope nobody may
cut it: the field is written into a raw prompt, as the offline evaluation does. That the server also holds replies to
such budgets is what `test_budgets.py` is about.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from tests.processes import ROOT, reasond
from tests.server.budget_load import run
from training.data.budget_replies import BudgetFormat, budget_format_of
from training.data.questions import draw
from training.evaluation.statistics import BudgetTrial, interval, slope, within

A = TypeVar("A")
R = TypeVar("R")
MODEL = ROOT / "demo/budget"
CONFIG = ROOT / "configs/budget.toml"
QUESTIONS = 150  # of each difficulty
CONCURRENCY = 8
SHARES = (0.1, 0.2, 0.5)

pytestmark = [
    pytest.mark.accept,
    pytest.mark.e2e,
    pytest.mark.skipif(not (MODEL / "evaluation.json").exists(), reason="demo/budget is not there: make demo-budget"),
]


@dataclass(frozen=True, slots=True)
class Streamed:
    """One reply: its declared budget and its length, and how long it took against how long it was said to take."""

    measured: BudgetTrial
    estimated: float | None
    seconds: float


async def declared(client: httpx.AsyncClient, question: str) -> Streamed:
    """Asks without a budget. Time runs from the first decision record on, which has the estimate."""
    body = {"model": "budget", "messages": [{"role": "user", "content": question}], "stream": True, "temperature": 1}
    first: dict[str, Any] | None = None
    last: dict[str, Any] = {}
    begun = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                told = json.loads(line[6:]).get("reasond")
                if told and first is None:
                    first, begun = told, time.perf_counter()
                last = told or last
    used = last["budget"]
    estimated = (first or {}).get("seconds_to_answer")
    return Streamed(BudgetTrial(True, used["used"], used["declared"]), estimated, time.perf_counter() - begun)


async def filled(client: httpx.AsyncClient, form: BudgetFormat, question: str, budget: int, most: int) -> BudgetTrial:
    """The length of a reply behind a budget field that is filled in, with nobody to cut it."""
    prompt = [*form.prompt(question), *form.prefill(budget)]
    body = {"model": "budget", "prompt": prompt, "max_tokens": most, "temperature": 1, "return_token_ids": True}
    answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    reply = form.read([*form.prefill(budget), *answer.json()["choices"][0]["token_ids"]])
    return BudgetTrial(reply.complete, reply.tokens, reply.budget)


def meets(
    name: str, served: Sequence[BudgetTrial], figure: Callable[[Sequence[BudgetTrial]], float], told: Any
) -> bool:
    """Whether the figure's interval here and the offline one have a point in common; printed, so that all are seen."""
    low, high = interval(figure, served, resamples=500, seed=0)
    off_low, off_high = told["interval"]
    met = low <= off_high and off_low <= high
    print(
        f"{name}: served {figure(served):.3f} ({low:.3f} to {high:.3f}), "
        f"offline {told['value']:.3f} ({off_low:.3f} to {off_high:.3f}){'' if met else '  APART'}"
    )
    return met


def test_declared_budgets_are_kept_as_offline_and_the_time_is_told() -> None:
    offline = json.loads((MODEL / "evaluation.json").read_text())
    rng = random.Random(20261121)
    task, most = TASKS[offline["recipe"]["task"]["name"]], offline["recipe"]["max_new_tokens"]
    form = budget_format_of("selfbudgeter", HubTokenizer(MODEL))
    streamed: list[Streamed] = []
    met: list[bool] = []
    with reasond(CONFIG) as (url, _):
        for cell in offline["by_difficulty"]:
            difficulty = cell["difficulty"]
            texts = [draw(task, difficulty, "test", rng).text for _ in range(QUESTIONS)]
            pairs = [(text, rng.randint(*cell["budgets"])) for text in texts]
            own = asyncio.run(asked(url, texts, declared))
            told = asyncio.run(asked(url, pairs, lambda client, pair: filled(client, form, *pair, most)))
            streamed += own
            for share in SHARES:
                name, replies = f"{difficulty}: within {share:.0%}", [one.measured for one in own]
                met.append(meets(name, replies, near(share), cell["own"]["within"][f"{share:.0%}"]))
            met.append(meets(f"{difficulty}: slope", told, slope, cell["prefilled"]["slope"]))
    warm = [(one.estimated, one.seconds) for one in streamed[CONCURRENCY:] if one.estimated]
    error = statistics.median(abs(estimated - seconds) / seconds for estimated, seconds in warm)
    print(f"median relative error of the time estimate: {error:.3f} over {len(warm)} replies")
    assert all(met)
    assert len(warm) > 0.9 * len(streamed)
    assert error < 0.2


def near(share: float) -> Callable[[Sequence[BudgetTrial]], float]:
    return lambda replies: within(replies, share)


async def asked(url: str, todo: list[A], ask: Callable[[httpx.AsyncClient, A], Awaitable[R]]) -> list[R]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        return await run(todo, CONCURRENCY, lambda one: ask(client, one))
