"""Budgets hold under every name, on every kind of route, at any concurrency."""

import random

import pytest

from models.text.tokenizer import HubTokenizer
from tests.server.budget_load import ask, body, check, client, run


async def hold(tokenizer: HubTokenizer, requests: int, concurrency: int, seed: int) -> float:
    """Checks every reply; returns the share of replies whose budget was binding."""
    rng = random.Random(seed)
    bodies = [body(rng) for _ in range(requests)]
    async with client(tokenizer) as asking:
        replies = await run(bodies, concurrency, lambda fields: ask(asking, fields))
    assert len(replies) == requests
    for fields, said in zip(bodies, replies, strict=True):
        check(fields, said, tokenizer)
    return sum(said.record["cut"] is not None for said in replies) / requests


@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 8, 64])
async def test_no_budget_is_exceeded_and_usage_is_a_recount(tokenizer: HubTokenizer, concurrency: int) -> None:
    assert await hold(tokenizer, 200, concurrency, seed=concurrency) > 0.5


@pytest.mark.accept
@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 2, 4, 8, 16, 32, 48, 64])
async def test_ten_thousand_requests_keep_their_budgets(tokenizer: HubTokenizer, concurrency: int) -> None:
    assert await hold(tokenizer, 1250, concurrency, seed=1000 + concurrency) >= 0.6
