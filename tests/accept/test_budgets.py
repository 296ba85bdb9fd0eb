"""Ten thousand requests with budgets under every name at the demo model, recounted without our parsers."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.tokenizer import HubTokenizer
from server.config import load_config
from tests.processes import ROOT, reasond
from tests.server.budget_load import Said, check, run
from training.tasks import TASKS, draw

pytestmark = [pytest.mark.accept, pytest.mark.e2e]

REQUESTS = int(os.environ.get("REASOND_BUDGET_REQUESTS", "10000"))
CONCURRENCY = (1, 2, 4, 8, 16, 32, 48, 64)
SHARES = (1, 2, 4, 8, 16, 16, 16, 16)  # of the requests: one at a time takes longest
ROUTES = """
[routes.reserved]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { reserve = 8, tolerance = 8 }

[routes.hard]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { cut = "hard", cap = 40 }

[routes.free]
engine = "demo"
family = "lhrm"
budgets = { reserve = 8 }
"""
RESERVED = ("reserved", "free")
LONGEST = 46  # tokens that the model thinks on the deepest question


def body(rng: random.Random) -> dict[str, Any]:
    """One request: any route, any name of a budget, most of them smaller than what the model would think."""
    question = draw(TASKS["chain"], rng.randrange(4, 9), "test", rng).text
    tokens = rng.choice([rng.randrange(1, 20), rng.randrange(1, 20), rng.randrange(1, LONGEST)])
    names: list[dict[str, Any]] = [
        {"thinking_token_budget": tokens},
        {"thinking_budget": tokens},
        {"thinking_budget_tokens": tokens},
        {"reasoning_budget_tokens": tokens},
        {"max_thinking_tokens": tokens},
        {"nvext": {"max_thinking_tokens": tokens}},
        {"reasoning": {"max_tokens": tokens}},
        {"thinking": {"budget_tokens": tokens}},
        {"reasond": {"budget": tokens, "cut": rng.choice(["graceful", "hard"])}},
        {"reasond": {"budget": {"tokens": tokens, "scope": "thinking"}}},
    ]
    fields = rng.choice(names)
    if rng.random() < 0.3:
        fields["max_tokens"] = rng.randrange(12, 120)
    if rng.random() < 0.5:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": question}]
    route = rng.choice(("reserved", "hard", "free"))
    return {"model": route, "messages": messages, "seed": rng.randrange(10**9), "return_token_ids": True, **fields}


def test_no_budget_is_exceeded_no_answer_empty_and_usage_is_a_recount(tmp_path: Path) -> None:
    config = tmp_path / "budgets.toml"
    config.write_text((ROOT / "configs/demo.toml").read_text() + ROUTES)
    load_config(config)
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")
    rng = random.Random(20261121)
    cuts: Counter[str | None] = Counter()
    with reasond(config) as (url, _):
        for concurrency, share in zip(CONCURRENCY, SHARES, strict=True):
            bodies = [body(rng) for _ in range(round(REQUESTS * share / sum(SHARES)))]
            for fields, said in zip(bodies, asyncio.run(asked(url, bodies, concurrency)), strict=True):
                check(fields, said, tokenizer)
                if fields["model"] in RESERVED:
                    assert said.answer.strip(), (fields, said)
                cuts[said.record["cut"]] += 1
    print(f"\n{cuts.total()} requests, ended by: {dict(cuts)}")
    assert cuts.total() >= REQUESTS - len(SHARES)
    assert cuts[None] <= 0.4 * cuts.total()


async def asked(url: str, bodies: list[dict[str, Any]], concurrency: int) -> list[Said]:
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        assert (await client.get("/ready")).status_code == 200
        return await run(client, bodies, concurrency)
