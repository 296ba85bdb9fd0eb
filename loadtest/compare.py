"""Two servers, or two ways of asking one, under the same load in alternation: ratios with intervals.

A machine's speed drifts, so one side is never measured long after the other: rounds run A B, B A, A B, ..., each round
gives one ratio of each figure, and the interval is over the rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from loadtest.arrivals import Arrivals
from loadtest.distribution import Interval, mean_ratio
from loadtest.records import Request, Result, Target
from loadtest.run import run
from loadtest.stats import Summary, summarise

RATES: Final = ("requests_per_second", "output_tokens_per_second")
TIMES: Final = (
    "time_to_first_token_ms",
    "time_to_first_output_token_ms",
    "inter_token_latency_ms",
    "time_per_output_token_ms",
    "request_latency_ms",
)


@dataclass(frozen=True, slots=True)
class Side:
    target: Target
    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Ratio:
    """`a` and `b`: mean over the rounds. `ratio` is a over b, the geometric mean of `rounds` with its 95 % interval."""

    a: float
    b: float
    ratio: Interval
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`a` and `b` hold one summary a round, `results_a` and `results_b` what they were made from."""

    name_a: str
    name_b: str
    ratios: Mapping[str, Ratio]
    a: tuple[Summary, ...]
    b: tuple[Summary, ...]
    results_a: tuple[Result, ...]
    results_b: tuple[Result, ...]


async def compare(
    a: Side, b: Side, arrivals: Arrivals, *, rounds: int = 6, warmup: int = 0, **options: Any
) -> Comparison:
    """Each round gives both sides their share of the requests (request i to round i modulo `rounds`).

    `warmup` requests of each side go first and are not counted; `options` are those of `run`.
    """
    for side in (a, b) if warmup else ():
        await run(side.target, side.requests[:warmup], arrivals, **options)
    results: tuple[list[Result], list[Result]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            side = (a, b)[which]
            results[which].append(await run(side.target, side.requests[number::rounds], arrivals, **options))
    return compared(a.target.label, b.target.label, *results)


def compared(name_a: str, name_b: str, results_a: Sequence[Result], results_b: Sequence[Result]) -> Comparison:
    """The ratios of rounds that have been run."""
    a, b = [summarise(result) for result in results_a], [summarise(result) for result in results_b]
    found = {name: _ratio(figure, a, b) for name, figure in _figures().items()}
    ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
    return Comparison(name_a, name_b, ratios, tuple(a), tuple(b), tuple(results_a), tuple(results_b))


Figure = Callable[[Summary], float | None]


def _figures() -> dict[str, Figure]:
    figures: dict[str, Figure] = {name: _rate(name) for name in RATES}
    for name in TIMES:
        figures[f"{name} mean"] = _figure(name, "mean")
        figures[f"{name} p50"] = _figure(name, "p50")
        figures[f"{name} p99"] = _figure(name, "p99")
    figures["output_tokens mean"] = _figure("output_tokens", "mean")
    figures["reasoning_tokens mean"] = _figure("reasoning_tokens", "mean")
    figures["accuracy"] = lambda summary: None if summary.accuracy is None else summary.accuracy.value
    return figures


def _rate(name: str) -> Figure:
    return lambda summary: float(getattr(summary, name))


def _figure(measure: str, statistic: str) -> Figure:
    def read(summary: Summary) -> float | None:
        figures = summary.measures.get(measure)
        return None if figures is None else float(getattr(figures, statistic))

    return read


def _ratio(figure: Figure, a: Sequence[Summary], b: Sequence[Summary]) -> Ratio | None:
    """None where a round lacks the figure, or it is 0 on either side."""
    pairs = [(x, y) for one, other in zip(a, b, strict=True) if (x := figure(one)) and (y := figure(other))]
    if len(pairs) < len(a) or not pairs:
        return None
    rounds = tuple(x / y for x, y in pairs)
    return Ratio(fmean(x for x, _ in pairs), fmean(y for _, y in pairs), mean_ratio(rounds), rounds)
