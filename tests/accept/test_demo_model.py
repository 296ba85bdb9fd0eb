"""The hybrid demo model through the server: it thinks when that pays, and only then."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from demo.tasks import TASKS
from loadtest.load.arrivals import Concurrent
from loadtest.load.run import run
from loadtest.records import LoadRequest, LoadTarget, RequestRecord
from tests.processes import ROOT, reasond
from training.data.questions import draw

QUESTIONS = 1000

pytestmark = pytest.mark.accept


def questions() -> list[LoadRequest]:
    """Fresh questions (none of them can be in training), half of depth 1, half of depths 4 to 8."""
    rng = random.Random(20261121)
    depths = [1] * (QUESTIONS // 2) + [4 + i % 5 for i in range(QUESTIONS // 2)]
    drawn = [draw(TASKS["chain"], depth, "test", rng) for depth in depths]
    return [
        LoadRequest(
            str(i), ({"role": "user", "content": q.text},), answer=q.answer, difficulty=q.difficulty, stream=False
        )
        for i, q in enumerate(drawn)
    ]


def ask(url: str, route: str, requests: Sequence[LoadRequest]) -> list[RequestRecord]:
    records = list(asyncio.run(run(LoadTarget(url, route), requests, Concurrent(32))).records)
    assert not [record for record in records if record.error]
    return records


def right(records: Sequence[RequestRecord]) -> float:
    return sum(record.answer.strip() == record.request.answer for record in records) / len(records)


def tokens(records: Sequence[RequestRecord], unforced: Sequence[RequestRecord]) -> float:
    """Mean tokens of a reply, its mode token with it: a forced one is counted as prompt, a chosen one as completion."""
    pairs = zip(records, unforced, strict=True)
    return sum(total(record) - (free.prompt_tokens or 0) for record, free in pairs) / len(records)


def total(record: RequestRecord) -> int:
    return (record.prompt_tokens or 0) + (record.completion_tokens or 0)


def thought(records: Sequence[RequestRecord]) -> float:
    return sum((record.decision or {})["mode"] == "think" for record in records) / len(records)


def test_auto_is_as_right_as_always_thinking_for_fewer_tokens() -> None:
    with reasond(ROOT / "configs/demo.toml") as (url, _):
        replies = {route: ask(url, route, questions()) for route in ("demo", "demo-think", "demo-direct")}
    easy = [record for record in replies["demo"] if record.request.difficulty == 1]
    hard = [record for record in replies["demo"] if record.request.difficulty != 1]
    for route, records in replies.items():
        print(f"\n{route}: right {right(records):.3f}, tokens {tokens(records, replies['demo']):.1f}")
    print(f"thinking on depth 1: {thought(easy):.3f}, on depths 4 to 8: {thought(hard):.3f}")
    auto, always, never = replies["demo"], replies["demo-think"], replies["demo-direct"]
    assert right(auto) >= right(always) - 0.01
    assert right(auto) >= right(never) + 0.30
    assert tokens(auto, auto) <= 0.9 * tokens(always, auto)
    assert thought(easy) <= 0.10
    assert thought(hard) >= 0.95
