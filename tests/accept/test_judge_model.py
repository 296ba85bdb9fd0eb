"""The demo judge through the server: accuracy by votes, by thinking budget and by rounds of a tournament, in the shape
of the figures of arXiv 2505.14674. Writes `curves.json`, `curves.md` and `curves.png` to `demo/judge`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.processes import ROOT, reasond
from training.hybrid_accuracy import bootstrap, mean
from training.tasks import TASKS, Question, draw
from training.tasks.judging import corrupted

pytestmark = pytest.mark.accept

OUT = ROOT / "demo/judge"
DEPTHS = (2, 3, 4, 5, 6)
PAIRS, QUESTIONS, REPLIES = 200, 80, 8
VOTES = (1, 3, 5, 16)
BUDGETS = (4, 8, 16, 24, 32, 48, None)
HEAT = 2.0  # the policy's temperature, so that many of its replies are wrong
CONFIG = """
[engines.judge]
kind = "vllm"
model = "demo/judge"
args = { max_model_len = 512, block_size = 32, max_num_seqs = 128 }
env = { VLLM_CPU_KVCACHE_SPACE = "1" }

[routes.judge]
engine = "judge"
family = "lhrm"
mode = "think"
controller = "judge"
sampling = { temperature = 1.0, max_tokens = 96 }
budgets = { cut = "hard" }

[routes.judge.judge]
family = "rrm_short"
cache_size = 0
"""


@dataclass(frozen=True)
class Point:
    """Accuracy at one place of a curve, with its 95 % interval over questions, and judge tokens a question."""

    at: Any
    accuracy: float
    low: float
    high: float
    tokens: float | None = None


def point(at: Any, hits: Sequence[float], tokens: float | None = None) -> Point:
    low, high = bootstrap(hits, 2000, 1)
    return Point(at, mean(hits), low, high, tokens)


@dataclass(frozen=True)
class Judged:
    """A question, and the replies of which the one at `right` is right."""

    query: str
    replies: tuple[str, str]
    right: int


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[httpx.Client]:
    config = tmp_path_factory.mktemp("judge") / "judge.toml"
    config.write_text(CONFIG)
    with reasond(config) as (url, _), httpx.Client(base_url=url, timeout=1200) as client:
        yield client


@pytest.fixture(scope="module")
def pairs() -> list[Judged]:
    """Fresh pairs over questions of the test side, half of them with the right reply first."""
    rng = Random(20261121)
    found: list[Judged] = []
    while len(found) < PAIRS:
        question = draw(TASKS["chain"], DEPTHS[len(found) % len(DEPTHS)], "test", rng)
        wrong = corrupted(question.thought, rng)
        right = len(found) % 2
        replies = [
            f"{solution[-1]} for {solution}" if rng.random() < 0.5 else solution[-1]
            for solution in (question.thought, wrong)
        ]
        found.append(Judged(question.text, (replies[right], replies[1 - right]), right))
    return found


def compare(
    client: httpx.Client, pairs: Sequence[Judged], **terms: Any
) -> tuple[list[float], float, list[list[dict[str, Any]]]]:
    """Hits (1, 0, or 1/2 without a verdict), judge tokens a pair, and the ballots."""
    items = [{"query": pair.query, "replies": pair.replies} for pair in pairs]
    answer = client.post("/v1/rewards/compare", json={"items": items, **terms})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["failed"] == 0, next(one for one in told["results"] if "error" in one)
    hits = [
        0.5 if one["winner"] is None else float(one["winner"] == pair.right)
        for one, pair in zip(told["results"], pairs, strict=True)
    ]
    return hits, told["usage"]["completion_tokens"] / len(pairs), [one["ballots"] for one in told["results"]]


@pytest.fixture(scope="module")
def curves() -> Iterator[dict[str, list[Point]]]:
    """Collected by the tests, written when they are over."""
    found: dict[str, list[Point]] = {}
    yield found
    if len(found) == 5:
        write(found)


def test_accuracy_rises_with_votes(server, pairs, curves):
    curves["votes"] = []
    for votes in VOTES:
        hits, tokens, _ = compare(server, pairs, votes=votes, seed=1)
        curves["votes"].append(point(votes, hits, tokens))
    first, *_, last = curves["votes"]
    print(curves["votes"])
    assert 0.7 <= first.accuracy <= 0.95
    assert last.accuracy > first.accuracy


def test_a_verdict_seldom_hangs_on_the_order(server, pairs, curves):
    """Both orders of the same pair: how often the two verdicts agree."""
    _, _, ballots = compare(server, pairs, votes=2, seed=2)
    agree = [
        float(one["verdict"] == other["verdict"])
        for one, other in ballots
        if None not in (one["verdict"], other["verdict"])
    ]
    assert all(one["swapped"] != other["swapped"] for one, other in ballots)
    curves["consistency"] = [point("both orders", agree)]
    print(curves["consistency"])
    assert curves["consistency"][0].low > 0.5


def test_accuracy_rises_with_the_thinking_budget(server, pairs, curves):
    curves["budget"] = []
    for budget in BUDGETS:
        terms = {} if budget is None else {"thinking_token_budget": budget}
        hits, tokens, _ = compare(server, pairs, votes=1, seed=3, **terms)
        curves["budget"].append(point(budget, hits, tokens))
    print(curves["budget"])
    assert curves["budget"][-1].accuracy > curves["budget"][0].high


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    rng = Random(7)
    return [draw(TASKS["chain"], DEPTHS[i % len(DEPTHS)], "test", rng) for i in range(QUESTIONS)]


@pytest.fixture(scope="module")
def drawn(questions) -> list[list[str]]:
    """Replies of the hybrid demo model, whose engine is gone before the judge's starts."""
    with reasond(ROOT / "configs/demo.toml") as (url, _), httpx.Client(base_url=url, timeout=1200) as client:
        return [replies_to(client, question, i) for i, question in enumerate(questions)]


def test_a_tournament_finds_better_replies_than_a_majority(drawn, server, questions, curves):
    right = [
        [float(reply == question.answer) for reply in replies]
        for question, replies in zip(questions, drawn, strict=True)
    ]
    items = [{"query": question.text, "replies": replies} for question, replies in zip(questions, drawn, strict=True)]
    bracket = ranked(server, items, method="knockout")
    curves["knockout"] = [
        point(rounds, [mean([hits[i] for i in alive(one, rounds)]) for one, hits in zip(bracket, right, strict=True)])
        for rounds in range(4)
    ]
    by_elo = ranked(server, items, method="round_robin", rating="elo")
    curves["best of 8"] = [
        point(
            "majority", [majority(replies, question.answer) for replies, question in zip(drawn, questions, strict=True)]
        ),
        point("elo", [best(one, hits) for one, hits in zip(by_elo, right, strict=True)]),
        point("any", [max(hits) for hits in right]),
    ]
    print(curves["knockout"], curves["best of 8"])
    assert curves["knockout"][3].accuracy > curves["knockout"][0].high


def replies_to(client: httpx.Client, question: Question, seed: int) -> list[str]:
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": question.text}],
        "reasond": {"mode": "think"},
        "temperature": HEAT,
        "n": REPLIES,
        "seed": 1000 * seed,
        "max_tokens": 64,
    }
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return [choice["message"]["content"].strip()[:20] or "?" for choice in answer.json()["choices"]]


def ranked(client: httpx.Client, items: Sequence[dict[str, Any]], **rules: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/rewards/rank", json={"items": items, "votes": 5, "seed": 5, **rules})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["failed"] == 0, next(one for one in told["results"] if "error" in one)
    return told["results"]


def alive(ranking: dict[str, Any], rounds: int) -> list[int]:
    """The replies that are still in after so many rounds."""
    if rounds == len(ranking["bracket"]):
        return ranking["order"][:1]
    return [reply for match in ranking["bracket"][rounds] for reply in match["replies"]]


def majority(replies: Sequence[str], answer: str) -> float:
    """The chance that the commonest reply, one of them by lot, is right."""
    counts = Counter(replies)
    most = [reply for reply, count in counts.items() if count == max(counts.values())]
    return float(answer in most) / len(most)


def best(ranking: dict[str, Any], hits: Sequence[float]) -> float:
    """The share of right ones among the best rated."""
    top = max(ranking["ratings"])
    return mean([hit for hit, rating in zip(hits, ranking["ratings"], strict=True) if rating == top])


def write(curves: dict[str, list[Point]]) -> None:
    plain = {name: [vars_of(one) for one in points] for name, points in curves.items()}
    (OUT / "curves.json").write_text(json.dumps(plain, indent=1) + "\n")
    lines = ["| curve | at | accuracy | 95 % interval | judge tokens a pair |", "|---|---|---|---|---|"]
    for name, points in curves.items():
        for one in points:
            tokens = "" if one.tokens is None else f"{one.tokens:.1f}"
            at = "none" if one.at is None else one.at
            lines.append(f"| {name} | {at} | {one.accuracy:.3f} | {one.low:.3f} to {one.high:.3f} | {tokens} |")
    (OUT / "curves.md").write_text("\n".join(lines) + "\n")
    plot(curves, OUT / "curves.png")


def vars_of(one: Point) -> dict[str, Any]:
    return {"at": one.at, "accuracy": one.accuracy, "interval": [one.low, one.high], "tokens": one.tokens}


def plot(curves: dict[str, list[Point]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    titles: list[tuple[str, str, Callable[[Point], str]]] = [
        ("votes", "voting@k", lambda one: str(one.at)),
        ("budget", "thinking budget (tokens)", lambda one: "none" if one.at is None else str(one.at)),
        ("knockout", "knockout rounds, best of 8", lambda one: str(one.at)),
    ]
    for axis, (name, title, label) in zip(axes, titles, strict=True):
        points = curves[name]
        values = [one.accuracy for one in points]
        errors = [[one.accuracy - one.low for one in points], [one.high - one.accuracy for one in points]]
        axis.errorbar(range(len(points)), values, yerr=errors, marker="o", capsize=3)
        axis.set_xticks(range(len(points)), [label(one) for one in points])
        axis.set_xlabel(title)
        axis.set_ylabel("accuracy")
    for one, style in zip(curves["best of 8"], ("--", "-.", ":"), strict=True):
        axes[2].axhline(one.accuracy, linestyle=style, color="grey", label=f"{one.at} {one.accuracy:.2f}")
    axes[2].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
