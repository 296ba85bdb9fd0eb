"""Many runs at rising load, and the search for the highest rate that meets given goals."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from loadtest.arrivals import Arrivals, Concurrent, Constant, Gamma, synchronous
from loadtest.distribution import Interval
from loadtest.goals import Goal, goodput, is_good
from loadtest.processes import run_in
from loadtest.records import Record, Request, Result, Target
from loadtest.workload import repeated


def rates_between(low: float, high: float, count: int) -> list[float]:
    """`count` rates evenly spread from `low` to `high`, both ends left out."""
    return [low + (high - low) * step / (count + 1) for step in range(1, count + 1)]


async def sweep(
    target: Target, requests: Sequence[Request], plans: Sequence[Arrivals], processes: int = 1, **options: Any
) -> AsyncIterator[Result]:
    """One run for each plan, one after another, each with all the requests."""
    for plan in plans:
        yield await run_in(processes, target, requests, plan, **options)


async def sweep_range(
    target: Target, requests: Sequence[Request], steps: int, processes: int = 1, seed: int = 0, **options: Any
) -> AsyncIterator[Result]:
    """The whole range without knowing it beforehand: one at a time, all at once, and `steps` Poisson rates between."""
    ends: list[Result] = []
    for plan in (synchronous(), Concurrent(len(requests))):
        ends.append(await run_in(processes, target, requests, plan, **options))
        yield ends[-1]
    slow, fast = (len(result.records) / result.seconds for result in ends)
    for rate in rates_between(slow, fast, steps):
        yield await run_in(processes, target, requests, Gamma(rate, seed=seed), **options)


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate that was tried: the share of requests that met all goals, its interval, and whether it was enough."""

    rate: float
    fraction: Interval
    met: bool
    result: Result


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


def alone(records: Sequence[Record]) -> list[Record]:
    """Those during whose whole life no other was under way."""
    ordered = sorted(records, key=lambda record: record.start_ns)
    earlier = [0, *accumulate((record.end_ns for record in ordered), max)]
    later = [*(record.start_ns for record in ordered[1:]), math.inf]
    lives = zip(ordered, earlier, later, strict=False)
    return [record for record, before, after in lives if before <= record.start_ns and record.end_ns <= after]


def is_hopeless(records: Sequence[Record], goals: Sequence[Goal], attainment: float) -> bool:
    """Whether even requests that had the server to themselves miss the goals: then no lower rate can help."""
    by_themselves = alone(records)
    good = sum(is_good(record, goals) for record in by_themselves)
    return len(by_themselves) >= 5 and good < attainment * len(by_themselves)


async def search(
    target: Target,
    requests: Sequence[Request],
    goals: Sequence[Goal],
    *,
    first: float = 1.0,
    attainment: float = 0.95,
    precision: float = 0.1,
    trial_seconds: float = 20.0,
    least: int = 20,
    burstiness: float | None = 1.0,
    seed: int = 0,
    processes: int = 1,
    **options: Any,
) -> AsyncIterator[Trial]:
    """Trials towards the highest rate at which at least `attainment` of the requests meet all `goals`.

    Each trial offers arrivals for about `trial_seconds`, at least `least` requests, the workload repeated as needed.
    `burstiness` None means constant arrivals. Ends early where no rate can meet the goals.
    """
    tried: list[tuple[float, bool]] = []
    while (rate := next_rate(tried, first, precision)) is not None:
        plan = Constant(rate) if burstiness is None else Gamma(rate, burstiness, seed)
        offered = repeated(requests, max(least, math.ceil(rate * trial_seconds)))
        result = await run_in(processes, target, offered, plan, **options)
        found = goodput(result, goals)
        assert found is not None  # at least `least` requests were sent
        tried.append((rate, found.fraction.value >= attainment))
        yield Trial(rate, found.fraction, tried[-1][1], result)
        if is_hopeless(result.records, goals, attainment):
            return


def best(trials: Sequence[Trial]) -> Trial | None:
    """The highest rate that met the goals; None if none did."""
    return max((trial for trial in trials if trial.met), key=lambda trial: trial.rate, default=None)
