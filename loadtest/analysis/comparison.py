"""Servers, or ways of asking one, under the same load in alternation: ratios with intervals, and who beats whom.

A machine's speed drifts, so no side is measured long after the others: rounds run A B C, C B A, A B C, ..., each round
gives one ratio of each figure, and the interval is over the rounds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from loadtest.analysis.distribution import Interval, mean_ratio
from loadtest.analysis.summary import (
    AccuracyFront,
    ReplyGroup,
    Summary,
    accuracy_latency_front,
    accuracy_tokens_front,
    group,
    summarise,
)
from loadtest.records import RequestRecord, RunResult

RATES: Final = ("requests_per_second", "output_tokens_per_second")
TIMES: Final = (
    "time_to_first_token_ms",
    "time_to_first_output_token_ms",
    "inter_token_latency_ms",
    "time_per_output_token_ms",
    "request_latency_ms",
)


@dataclass(frozen=True, slots=True)
class SideRounds:
    """One side's rounds: a summary each, and what it was made from."""

    name: str
    label: str
    results: tuple[RunResult, ...]
    summaries: tuple[Summary, ...]

    @property
    def records(self) -> Iterator[RequestRecord]:
        return (record for result in self.results for record in result.records)


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
    measured = [
        SideRounds(name, results[0].target.label, tuple(results), tuple(summarise(result) for result in results))
        for name, results in sides
    ]
    first, *others = measured
    groups = tuple(one for side in measured for one in _groups(side))
    return LoadComparison(
        sides=tuple(measured),
        ratios=tuple(_ratios(first.summaries, other.summaries) for other in others),
        groups=groups,
        accuracy_tokens_front=accuracy_tokens_front(groups),
        accuracy_latency_front=accuracy_latency_front(groups),
    )


def _groups(side: SideRounds) -> Iterator[ReplyGroup]:
    members: dict[str, list[RequestRecord]] = {}
    for record in side.records:
        name = f"{side.name}, {record.request.variant}" if record.request.variant else side.name
        if record.error is None:
            members.setdefault(name, []).append(record)
    return (group(name, records) for name, records in members.items())


def _ratios(a: Sequence[Summary], b: Sequence[Summary]) -> dict[str, FigureRatio]:
    found = {name: _ratio(figure, a, b) for name, figure in _figures().items()}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


Plot = Callable[[Summary], float | None]


def _figures() -> dict[str, Plot]:
    figures: dict[str, Plot] = {name: _rate(name) for name in RATES}
    for name in TIMES:
        figures[f"{name} mean"] = _figure(name, "mean")
        figures[f"{name} p50"] = _figure(name, "p50")
        figures[f"{name} p99"] = _figure(name, "p99")
    figures["output_tokens mean"] = _figure("output_tokens", "mean")
    figures["reasoning_tokens mean"] = _figure("reasoning_tokens", "mean")
    figures["accuracy"] = lambda summary: None if summary.accuracy is None else summary.accuracy.value
    return figures


def _rate(name: str) -> Plot:
    return lambda summary: float(getattr(summary, name))


def _figure(measure: str, statistic: str) -> Plot:
    def read(summary: Summary) -> float | None:
        figures = summary.measures.get(measure)
        return None if figures is None else float(getattr(figures, statistic))

    return read


def _ratio(figure: Plot, a: Sequence[Summary], b: Sequence[Summary]) -> FigureRatio | None:
    """None where a round lacks the figure, or it is 0 on either side."""
    pairs = [(x, y) for one, other in zip(a, b, strict=True) if (x := figure(one)) and (y := figure(other))]
    if len(pairs) < len(a) or not pairs:
        return None
    rounds = tuple(x / y for x, y in pairs)
    return FigureRatio(fmean(x for x, _ in pairs), fmean(y for _, y in pairs), mean_ratio(rounds), rounds)
