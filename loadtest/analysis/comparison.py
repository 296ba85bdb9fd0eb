"""Servers, or ways of asking one, under the same load in alternation: ratios with intervals, and who beats whom.

A machine's speed drifts, so no side is measured long after the others: rounds run A B C, C B A, A B C, ..., each round
gives one ratio of each figure, and the interval is over the rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from loadtest.analysis.distribution import Interval, mean_ratio
from loadtest.analysis.summary import AccuracyFront, ReplyGroup, Summary, accuracy_front, grouped, summarise
from loadtest.records import RunResult

_TIMES: Final = (
    "time_to_first_token_ms",
    "time_to_first_output_token_ms",
    "inter_token_latency_ms",
    "time_per_output_token_ms",
    "request_latency_ms",
)
_COMPARED: Final = dict.fromkeys(_TIMES, ("mean", "p50", "p99")) | dict.fromkeys(
    ("output_tokens", "reasoning_tokens"), ("mean",)
)


@dataclass(frozen=True, slots=True)
class SideRounds:
    """One side's rounds: a summary each, and what it was made from."""

    name: str
    label: str
    results: tuple[RunResult, ...]
    summaries: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class FigureRatio:
    """`a` and `b`: mean over the rounds. `ratio` is a over b, the geometric mean of `rounds` with its 95 % interval."""

    a: float
    b: float
    ratio: Interval
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LoadComparison:
    """`ratios` are the first side's figures over those of each other side, in the order of `sides[1:]`.

    `groups` are the sides (each split by variants, where its requests have them) over all rounds; the fronts are what
    no other group beats in accuracy against mean tokens and against mean latency.
    """

    sides: tuple[SideRounds, ...]
    ratios: tuple[Mapping[str, FigureRatio], ...]
    groups: tuple[ReplyGroup, ...]
    accuracy_tokens_front: AccuracyFront | None
    accuracy_latency_front: AccuracyFront | None


def compared(*sides: tuple[str, Sequence[RunResult]]) -> LoadComparison:
    """What rounds that have been run say: names, and each one's rounds in the same order. Raises ValueError for one."""
    if len(sides) < 2:
        raise ValueError("a comparison needs two sides or more")
    measured = tuple(
        SideRounds(name, results[0].target.label, tuple(results), tuple(summarise(result) for result in results))
        for name, results in sides
    )
    groups = tuple(group for side in measured for group in _groups(side))
    return LoadComparison(
        sides=measured,
        ratios=tuple(_ratios(measured[0], other) for other in measured[1:]),
        groups=groups,
        accuracy_tokens_front=accuracy_front(groups, "output_tokens"),
        accuracy_latency_front=accuracy_front(groups, "request_latency_ms"),
    )


def _groups(side: SideRounds) -> tuple[ReplyGroup, ...]:
    good = [record for result in side.results for record in result.records if record.error is None]
    return grouped(good, lambda one: f"{side.name}, {one.request.variant}" if one.request.variant else side.name)


def _ratios(a: SideRounds, b: SideRounds) -> dict[str, FigureRatio]:
    """Leaves out a figure that a round lacks, or that is 0 on either side."""
    rounds = [(figures(one), figures(other)) for one, other in zip(a.summaries, b.summaries, strict=True)]
    found = {}
    for name in figures(a.summaries[0]):
        pairs = [(x, y) for one, other in rounds if (x := one[name]) and (y := other[name])]
        if len(pairs) == len(rounds):
            ratios = tuple(x / y for x, y in pairs)
            ours, theirs = zip(*pairs, strict=True)
            found[name] = FigureRatio(fmean(ours), fmean(theirs), mean_ratio(ratios), ratios)
    return found


def figures(summary: Summary) -> dict[str, float | None]:
    """What is compared, by its name."""
    found: dict[str, float | None] = {
        "requests_per_second": summary.requests_per_second,
        "output_tokens_per_second": summary.output_tokens_per_second,
    }
    for name, statistics in _COMPARED.items():
        found |= {f"{name} {one}": getattr(summary.measures.get(name), one, None) for one in statistics}
    found["accuracy"] = None if summary.accuracy is None else summary.accuracy.value
    return found
