"""Ten thousand requests with budgets under every name, on three APIs, at both demo models: thinking and whole replies.

Where the API returns token ids they are recounted without our parsers. Elsewhere usage and decision record must agree
with each other and with what was asked for.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from controllers.policy.controls import BUDGET_NAMES
from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from server.config.load import Config, load_config
from tests.accept.three_apis import DEFAULT_LIMIT, BudgetRequest, Told, told
from tests.processes import ROOT, reasond
from tests.server.budget_load import check, run
from training.data.questions import draw

pytestmark = [pytest.mark.accept, pytest.mark.e2e]

REQUESTS = int(os.environ.get("REASOND_BUDGET_REQUESTS", "10000"))
CONCURRENCY = (1, 2, 4, 8, 16, 32, 48, 64)
SHARES = (1, 2, 4, 8, 16, 16, 16, 16)  # of the requests: one at a time takes longest
ROUTES = """
[routes.reserved]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { reserve = 8, tolerance = 8, efforts = { minimal = 4, low = 8, medium = 12, high = 24 } }

[routes.hard]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { cut = "hard", cap = 40, efforts = { minimal = 4, low = 8, medium = 12, high = 24 } }

[routes.free]
engine = "demo"
family = "lhrm"
budgets = { reserve = 8, efforts = { minimal = 4, low = 8, medium = 12, high = 24 } }

[routes.told]
engine = "budget"
family = "selfbudgeter"
budgets = { reserve = 4, tolerance = 8, efforts = { minimal = 10, low = 16, medium = 20, high = 24 } }
"""
THINKING = ("reserved", "hard", "free")
WHOLE = ("told", "budget", "budget-hold", "budget-hard")
EFFORTS = ("minimal", "low", "medium", "high")
LONGEST = {"thinking": 46, "reply": 280}  # tokens that the models write on the deepest question
SURE = {"thinking": 20, "reply": 24}  # below this nearly every reply has to be cut


def settings() -> str:
    """Both demo models with the routes that are shipped for them, and routes of this test."""
    budget = (ROOT / "configs/budget.toml").read_text()
    return (
        (ROOT / "configs/demo.toml").read_text()
        + "\n[engines.budget]"
        + budget.partition("[engines.budget]")[2]
        + ROUTES
    )


def asking(rng: random.Random, config: Config) -> BudgetRequest:
    """One request: any API, any route, any name of a budget, most of them smaller than what the model would write."""
    model = rng.choice(THINKING if rng.random() < 0.6 else WHOLE)
    budgets = config.routes[model].budgets.as_policy()
    control, expected = named(rng, "reply" if model in WHOLE else "thinking", budgets.efforts)
    if model in WHOLE and rng.random() < 0.25:
        control, expected = {}, None  # the model declares its own
    return BudgetRequest(
        api=rng.choice(("chat", "chat", "responses", "messages")),
        model=model,
        question=draw(TASKS["chain"], rng.randrange(4, 9), "test", rng).text,
        control=control,
        expected=expected,
        limit=rng.randrange(12, 120) if rng.random() < 0.3 else None,
        stream=rng.random() < 0.5,
        seed=rng.randrange(10**9),
    )


def named(rng: random.Random, scope: str, efforts: Mapping[str, int]) -> tuple[dict[str, Any], int]:
    """A budget under one of its names, and how many tokens that is."""
    if rng.random() < 0.25:
        effort = rng.choice(EFFORTS)
        names: list[dict[str, Any]] = [
            {"reasoning_effort": effort},
            {"reasoning": {"effort": effort}},
            {"output_config": {"effort": effort}},
            {"think": effort},
        ]
        return rng.choice(names), efforts[effort]
    tokens = rng.randrange(1, SURE[scope] if rng.random() < 0.8 else LONGEST[scope])
    own = {"prefill": rng.random() < 0.5} if scope == "reply" else {"cut": rng.choice(["graceful", "hard"])}
    names = [
        *({name: tokens} for name in BUDGET_NAMES),
        {"nvext": {"max_thinking_tokens": tokens}},
        {"reasoning": {"max_tokens": tokens}},
        {"thinking": {"budget_tokens": tokens}},
        {"reasond": {"budget": tokens, **own}},
        {"reasond": {"budget": {"tokens": tokens, "scope": scope}}},
    ]
    return rng.choice(names), tokens


def checked(asked: BudgetRequest, reply: Told, config: Config, tokenizer: HubTokenizer) -> None:
    """Everything that must hold of one reply, whatever its API."""
    about, budgets = (asked, reply), config.routes[asked.model].budgets
    if reply.said is not None:
        check(asked.body, reply.said, tokenizer)
    if asked.limit is not None:
        assert reply.completion_tokens <= asked.limit, about
    if budgets.reserve:
        assert reply.answer, about
        # a model that never saw a cut may write a blank and end its turn: its own choice, with room left
        assert reply.answer.strip() or reply.completion_tokens < (asked.limit or DEFAULT_LIMIT), about
    budget = reply.record.get("budget")
    if budget is None:
        assert asked.expected is None, about
        return
    assert budget["requested"] == asked.expected, about
    bounds = [asked.expected, budgets.cap, budget["enforced"], budget["declared"] if budgets.hold_declared else None]
    assert budget["used"] <= min(bound for bound in (*bounds, reply.completion_tokens) if bound is not None), about
    if budget["scope"] == "thinking":
        assert budget["used"] == reply.reasoning_tokens, about


def test_no_budget_is_exceeded_no_answer_empty_and_usage_is_a_recount(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(settings())
    config = load_config(path)
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")
    rng = random.Random(20261121)
    cuts: Counter[tuple[str, str | None]] = Counter()
    blank = 0
    with reasond(path) as (url, _):
        for concurrency, share in zip(CONCURRENCY, SHARES, strict=True):
            wanted = [asking(rng, config) for _ in range(round(REQUESTS * share / sum(SHARES)))]
            for asked, reply in zip(wanted, asyncio.run(replies(url, wanted, concurrency)), strict=True):
                checked(asked, reply, config, tokenizer)
                blank += bool(config.routes[asked.model].budgets.reserve) and not reply.answer.strip()
                kind = "declared" if asked.expected is None else "thinking" if asked.model in THINKING else "reply"
                cuts[kind, reply.record.get("cut")] += 1
    print(f"\n{cuts.total()} requests, {blank} blank answers with a reserve, ended by:")
    for (kind, cut), count in sorted(cuts.items(), key=str):
        print(f"  {kind:9} {cut or 'the model':10} {count}")
    assert cuts.total() >= REQUESTS - len(SHARES)
    assert blank <= REQUESTS / 1000
    requested = sum(count for (kind, _), count in cuts.items() if kind != "declared")
    assert sum(count for (kind, cut), count in cuts.items() if kind != "declared" and cut) >= 0.6 * requested


async def replies(url: str, wanted: list[BudgetRequest], concurrency: int) -> list[Told]:
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        assert (await client.get("/ready")).status_code == 200
        return await run(wanted, concurrency, lambda asked: told(client, asked))
