"""Declared budgets through the server against the offline evaluation of the same model, and the estimated time."""

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass

import httpx
import pytest

from tests.processes import ROOT, reasond
from training.adherence import Measured, slope, within
from training.tasks import TASKS, draw

MODEL = ROOT / "demo/budget"
CONFIG = ROOT / "configs/budget.toml"
QUESTIONS = 150  # of each difficulty
CONCURRENCY = 8
SHARE = 0.2

pytestmark = [
    pytest.mark.accept,
    pytest.mark.e2e,
    pytest.mark.skipif(not (MODEL / "evaluation.json").exists(), reason="demo/budget is not there: make demo-budget"),
]


@dataclass(frozen=True, slots=True)
class Streamed:
    """One reply: what its budget was and what it used, and how long it took against how long it was said to take."""

    measured: Measured
    estimated: float | None
    seconds: float


async def ask(client: httpx.AsyncClient, question: str, budget: int | None) -> Streamed:
    body = {"model": "budget", "messages": [{"role": "user", "content": question}], "stream": True, "temperature": 1}
    if budget is not None:
        body["reasond"] = {"budget": budget}
    first: dict | None = None
    last: dict = {}
    begun = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                told = json.loads(line[6:]).get("reasond")
                if told and first is None:
                    first, begun = told, time.perf_counter()
                last = told or last
    used = last["budget"]
    limit = budget if budget is not None else used["declared"]
    return Streamed(
        Measured(True, used["used"], limit), (first or {}).get("seconds_to_answer"), time.perf_counter() - begun
    )


async def asked(url: str, questions: list[tuple[str, int | None]]) -> list[Streamed]:
    turns = asyncio.Semaphore(CONCURRENCY)

    async def one(client: httpx.AsyncClient, question: str, budget: int | None) -> Streamed:
        async with turns:
            return await ask(client, question, budget)

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        return await asyncio.gather(*(one(client, question, budget) for question, budget in questions))


def test_declared_budgets_are_kept_as_offline_and_the_time_is_told() -> None:
    offline = json.loads((MODEL / "evaluation.json").read_text())
    rng = random.Random(20261121)
    task = TASKS[offline["recipe"]["task"]["name"]]
    streamed: list[Streamed] = []
    with reasond(CONFIG) as (url, _):
        for cell in offline["by_difficulty"]:
            texts = [draw(task, cell["difficulty"], "test", rng).text for _ in range(QUESTIONS)]
            own = asyncio.run(asked(url, [(text, None) for text in texts]))
            filled = asyncio.run(asked(url, [(text, rng.randint(*cell["budgets"])) for text in texts]))
            streamed += own
            near = within([one.measured for one in own], SHARE)
            told = cell["own"]["within"][f"{SHARE:.0%}"]["interval"]
            steep = slope([one.measured for one in filled])
            steep_told = cell["prefilled"]["slope"]["interval"]
            print(f"{cell['difficulty']}: within {near:.3f} of {told}, slope {steep:.3f} of {steep_told}")
            noise = 2 * (near * (1 - near) / QUESTIONS) ** 0.5  # of this sample; the interval is that of the other
            assert told[0] - noise <= near <= told[1] + noise
            assert steep >= steep_told[0] - 0.1  # held to its budget here, so never longer than offline
    warm = [one for one in streamed[CONCURRENCY:] if one.estimated]
    error = statistics.median(abs(one.estimated - one.seconds) / one.seconds for one in warm if one.estimated)
    print(f"median relative error of the time estimate: {error:.3f} over {len(warm)} replies")
    assert error < 0.2
