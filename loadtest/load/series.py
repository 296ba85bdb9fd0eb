"""Many runs at rising load, and the search for the highest rate that meets given goals."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from loadtest.analysis.comparison import LoadComparison, compared
from loadtest.analysis.distribution import Interval
from loadtest.analysis.goals import Goal, goodput, is_good
from loadtest.load.arrivals import ArrivalPlan, Concurrent, poisson, synchronous
from loadtest.load.processes import run_in
from loadtest.load.run import run
from loadtest.load.workload import repeated
from loadtest.records import ComparedSide, LoadRequest, LoadTarget, RequestRecord, RunResult

_FEWEST: Final = 20
"""Requests of a trial."""


def rates_between(low: float, high: float, count: int) -> list[float]:
    """`count` rates evenly spread from `low` to `high`, both ends left out."""
    return [low + (high - low) * step / (count + 1) for step in range(1, count + 1)]


async def sweep(
    target: LoadTarget,
    requests: Sequence[LoadRequest],
    plans: Sequence[ArrivalPlan],
    processes: int = 1,
    **options: Any,
) -> AsyncIterator[RunResult]:
    """One run for each plan, one after another, each with all the requests."""
    for plan in plans:
        yield await run_in(processes, target, requests, plan, **options)


async def sweep_range(
    target: LoadTarget, requests: Sequence[LoadRequest], steps: int, processes: int = 1, seed: int = 0, **options: Any
) -> AsyncIterator[RunResult]:
    """The whole range without knowing it beforehand: one at a time, all at once, and `steps` Poisson rates between."""
    ends: list[RunResult] = []
    for plan in (synchronous(), Concurrent(len(requests))):
        ends.append(await run_in(processes, target, requests, plan, **options))
        yield ends[-1]
    slow, fast = (len(result.records) / result.seconds for result in ends)
    for rate in rates_between(slow, fast, steps):
        yield await run_in(processes, target, requests, poisson(rate, seed), **options)


@dataclass(frozen=True, slots=True)
class RateTrial:
    """One rate that was tried: the share of requests that met all goals, its interval, and whether it was enough."""

    rate: float
    fraction: Interval
    met: bool
    result: RunResult


def next_rate(trials: Sequence[tuple[float, bool]], first: float, precision: float) -> float | None:
    """The rate to try after (rate, met) trials; None when the highest that met is known to `precision` (a ratio - 1).

    Doubles while goals are met, halves while none has met them (sixteen times at most), then bisects the ratio.
    """
    met = max((rate for rate, good in trials if good), default=None)
    missed = min((rate for rate, good in trials if not good and (met is None or rate > met)), default=None)
    if met is None:
        return first if missed is None else missed / 2 if missed > first / 2**16 else None
    if missed is None:
        return met * 2 if met < first * 2**16 else None
    return math.sqrt(met * missed) if missed / met > 1 + precision else None


def alone(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Those during whose whole life no other was under way."""
    ordered = sorted(records, key=lambda record: record.start_ns)
    earlier = [0, *accumulate((record.end_ns for record in ordered), max)]
    later = [*(record.start_ns for record in ordered[1:]), math.inf]
    lives = zip(ordered, earlier, later, strict=False)
    return [record for record, before, after in lives if before <= record.start_ns and record.end_ns <= after]


def is_hopeless(records: Sequence[RequestRecord], goals: Sequence[Goal], attainment: float) -> bool:
    """Whether even requests that had the server to themselves miss the goals: then no lower rate can help."""
    by_themselves = alone(records)
    good = sum(is_good(record, goals) for record in by_themselves)
    return len(by_themselves) >= 5 and good < attainment * len(by_themselves)


async def search(
    target: LoadTarget,
    requests: Sequence[LoadRequest],
    goals: Sequence[Goal],
    *,
    first: float = 1.0,
    attainment: float = 0.95,
    precision: float = 0.1,
    trial_seconds: float = 20.0,
    seed: int = 0,
    processes: int = 1,
    **options: Any,
) -> AsyncIterator[RateTrial]:
    """Trials towards the highest rate at which at least `attainment` of the requests meet all `goals`.

    Each trial offers arrivals for about `trial_seconds`, at least `_FEWEST` requests, the workload repeated as needed.
    Ends early where no rate can meet the goals.
    """
    tried: list[tuple[float, bool]] = []
    while (rate := next_rate(tried, first, precision)) is not None:
        offered = repeated(requests, max(_FEWEST, math.ceil(rate * trial_seconds)))
        result = await run_in(processes, target, offered, poisson(rate, seed), **options)
        found = goodput(result, goals)
        assert found is not None  # requests were sent
        tried.append((rate, found.fraction.value >= attainment))
        yield RateTrial(rate, found.fraction, tried[-1][1], result)
        if is_hopeless(result.records, goals, attainment):
            return


def best(trials: Sequence[RateTrial]) -> RateTrial | None:
    """The highest rate that met the goals; None if none did."""
    return max((trial for trial in trials if trial.met), key=lambda trial: trial.rate, default=None)


async def compare(
    sides: Sequence[ComparedSide], arrivals: ArrivalPlan, *, rounds: int = 6, warmup: int = 0, **options: Any
) -> LoadComparison:
    """Each round gives every side its share of its requests (request i to round i modulo `rounds`).

    `warmup` requests of each side go first and are not counted; `options` are those of `run`. A side without a name is
    called by its letter. Raises ValueError for fewer than two sides.
    """
    for side in sides if warmup else ():
        await run(side.target, side.requests[:warmup], arrivals, **options)
    results: list[list[RunResult]] = [[] for _ in sides]
    for number in range(rounds):
        for place in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            side = sides[place]
            results[place].append(await run(side.target, side.requests[number::rounds], arrivals, **options))
    names = [side.name or chr(ord("A") + place) for place, side in enumerate(sides)]
    return compared(*zip(names, results, strict=True))
