"""The demo judge through the server: accuracy by votes, by thinking budget and by rounds of a tournament, in the shape
of the figures of arXiv 2505.14674. Writes `curves.json`, `curves.md` and `curves.png` to `demo/judge`, each curve as
soon as it is measured. A curve of an earlier run stays until it is measured again, unless a model has changed since.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from demo.tasks import TASKS
from demo.tasks.judging import corrupted
from tests.processes import ROOT, reasond
from training.data.questions import TrainingQuestion, draw
from training.evaluation.statistics import bootstrap, mean

pytestmark = pytest.mark.accept

JUDGE, POLICY = ROOT / "demo/judge", ROOT / "demo/hybrid"
DEPTHS = (2, 3, 4, 5, 6)
PAIRS, QUESTIONS, REPLIES = 200, 200, 8
ROUNDS = 3  # of a knockout between so many replies
VOTES = (1, 3, 5, 16)
BUDGETS = (4, 8, 16, 24, 32, 48, None)
CALLERS = 8  # questions in flight while replies are drawn
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
    """A mean at one place of a curve, with its 95 % interval over questions, and judge tokens a question."""

    at: Any
    mean: float
    low: float
    high: float
    tokens: float | None = None

    @property
    def name(self) -> str:
        return "none" if self.at is None else str(self.at)


def point(at: Any, values: Sequence[float], tokens: float | None = None) -> Point:
    low, high = bootstrap(values, 2000, 1)
    return Point(at, mean(values), low, high, tokens)


class Curves:
    """What has been measured, beside the judge's weights."""

    def __init__(self) -> None:
        weights = b"".join((model / "model.safetensors").read_bytes() for model in (JUDGE, POLICY))
        self._models = sha256(weights).hexdigest()
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        known = kept["curves"] if kept.get("models") == self._models else {}
        self._curves = {name: [Point(**one) for one in points] for name, points in known.items()}

    @property
    def _file(self) -> Path:
        return JUDGE / "curves.json"

    def write(self, name: str, points: list[Point]) -> None:
        """Adds a curve, and writes all of them out."""
        print(name, *points, sep="\n  ")
        self._curves[name] = points
        plain = {name: [asdict(one) for one in points] for name, points in self._curves.items()}
        self._file.write_text(json.dumps({"models": self._models, "curves": plain}, indent=1) + "\n")
        lines = ["| curve | at | mean | 95 % interval | judge tokens a pair |", "|---|---|---|---|---|"]
        for name, points in self._curves.items():
            for one in points:
                tokens = "" if one.tokens is None else f"{one.tokens:.1f}"
                lines.append(f"| {name} | {one.name} | {one.mean:.3f} | {one.low:.3f} to {one.high:.3f} | {tokens} |")
        (JUDGE / "curves.md").write_text("\n".join(lines) + "\n")
        plot(self._curves, JUDGE / "curves.png")


@dataclass(frozen=True)
class Judged:
    """A question, and the replies of which the one at `right` is right."""

    query: str
    replies: tuple[str, str]
    right: int


@pytest.fixture(scope="module")
def questions() -> list[TrainingQuestion]:
    rng = Random(7)
    return [draw(TASKS["chain"], DEPTHS[i % len(DEPTHS)], "test", rng) for i in range(QUESTIONS)]


@pytest.fixture(scope="module")
def drawn(questions) -> list[list[str]]:
    """Replies of the hybrid demo model, whose engine is gone when this returns."""
    with (
        reasond(ROOT / "configs/demo.toml") as (url, _),
        httpx.Client(base_url=url, timeout=1200) as client,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        return list(callers.map(lambda i: replies_to(client, questions[i], i), range(len(questions))))


@pytest.fixture(scope="module")
def server(drawn, tmp_path_factory) -> Iterator[httpx.Client]:
    """The judge. `drawn` goes first: two engines at a time are too much for a small machine."""
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
def curves() -> Curves:
    return Curves()


def test_accuracy_rises_with_votes(server, pairs, curves):
    points = []
    for votes in VOTES:
        hits, tokens, _ = compare(server, pairs, votes=votes, seed=1)
        points.append(point(votes, hits, tokens))
    curves.write("votes", points)
    assert 0.7 <= points[0].mean <= 0.95
    assert points[-1].mean > points[0].mean


def test_a_verdict_seldom_hangs_on_the_order(server, pairs, curves):
    """Both orders of the same pair: how often the two verdicts agree."""
    _, _, ballots = compare(server, pairs, votes=2, seed=2)
    agree = [
        float(one["verdict"] == other["verdict"])
        for one, other in ballots
        if None not in (one["verdict"], other["verdict"])
    ]
    found = point("both orders", agree)
    curves.write("consistency", [found])
    assert all(one["swapped"] != other["swapped"] for one, other in ballots)
    assert found.low > 0.5


def test_accuracy_rises_with_the_thinking_budget(server, pairs, curves):
    points = []
    for budget in BUDGETS:
        terms = {} if budget is None else {"thinking_token_budget": budget}
        hits, tokens, _ = compare(server, pairs, votes=1, seed=3, **terms)
        points.append(point(budget, hits, tokens))
    curves.write("budget", points)
    assert points[-1].mean > points[0].high


def test_a_tournament_finds_better_replies_than_chance_and_no_worse_ones_than_a_majority(
    drawn, server, questions, curves
):
    """Question by question on the same replies, so that how hard the questions are is no noise. "No worse" means that
    the 95 % interval of the difference does not lie below 0; by how much it is better is in the curve `over majority`.
    """
    right = [
        [float(reply == question.answer) for reply in replies]
        for question, replies in zip(questions, drawn, strict=True)
    ]
    items = [{"query": question.text, "replies": replies} for question, replies in zip(questions, drawn, strict=True)]
    brackets = ranked(server, items, method="knockout")
    by_round = [
        [mean([hits[i] for i in alive(one, rounds)]) for one, hits in zip(brackets, right, strict=True)]
        for rounds in range(ROUNDS + 1)
    ]
    knockout = [point(rounds, hits) for rounds, hits in enumerate(by_round)]
    curves.write("knockout", knockout)
    by_majority = [majority(replies, question.answer) for replies, question in zip(drawn, questions, strict=True)]
    rated = ranked(server, items, method="round_robin", rating="elo")
    by_elo = [best(one, hits) for one, hits in zip(rated, right, strict=True)]
    by_luck = [max(hits) for hits in right]
    curves.write("best of 8", [point("majority", by_majority), point("elo", by_elo), point("any", by_luck)])
    over = [
        point(name, [mine - theirs for mine, theirs in zip(hits, by_majority, strict=True)])
        for name, hits in (("knockout", by_round[-1]), ("elo", by_elo))
    ]
    curves.write("over majority", over)
    assert knockout[-1].mean > knockout[0].high
    assert all(one.high >= 0 for one in over)


def replies_to(client: httpx.Client, question: TrainingQuestion, seed: int) -> list[str]:
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
    """The share of right ones among the best rated. Those of which the judge said nothing have no rating."""
    rated = [rating for rating in ranking["ratings"] if rating is not None]
    if not rated:
        return mean(hits)
    return mean([hit for hit, rating in zip(hits, ranking["ratings"], strict=True) if rating == max(rated)])


def plot(curves: dict[str, list[Point]], path: Path) -> None:
    """Those of the three panels' curves that there are."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    panels = {"votes": "voting@k", "budget": "thinking budget (tokens)", "knockout": "knockout rounds, best of 8"}
    for axis, (name, title) in zip(axes, panels.items(), strict=True):
        points = curves.get(name, [])
        errors = [[one.mean - one.low for one in points], [one.high - one.mean for one in points]]
        axis.errorbar(range(len(points)), [one.mean for one in points], yerr=errors, marker="o", capsize=3)
        axis.set_xticks(range(len(points)), [one.name for one in points])
        axis.set_xlabel(title)
        axis.set_ylabel("accuracy")
    if beside := curves.get("best of 8"):
        for one, style in zip(beside, ("--", "-.", ":"), strict=True):
            axes[2].axhline(one.mean, linestyle=style, color="grey", label=f"{one.name} {one.mean:.2f}")
        axes[2].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
