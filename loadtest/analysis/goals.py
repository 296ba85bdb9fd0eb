"""Goals on latency, and goodput: the rate of requests that meet all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.analysis import measures
from loadtest.analysis.distribution import Interval, wilson
from loadtest.records import RequestRecord, RunResult

_SHORT: Final = {
    "ttft": "time_to_first_token_ms",
    "ttfot": "time_to_first_output_token_ms",
    "itl": "inter_token_latency_ms",
    "tpot": "time_per_output_token_ms",
    "e2el": "request_latency_ms",
}
_FROM_START: Final = ("time_to_first_token_ms", "time_to_first_output_token_ms", "request_latency_ms")


@dataclass(frozen=True, slots=True)
class Goal:
    """A request is good if this measure is at most `limit` (milliseconds). A request that lacks the measure is not."""

    measure: str
    limit: float


@dataclass(frozen=True, slots=True)
class Goodput:
    """`fraction`: good requests over all requests, failed ones included."""

    goals: tuple[Goal, ...]
    fraction: Interval
    requests_per_second: float


def parse_goal(text: str) -> Goal:
    """`ttft:200`, in milliseconds: one of ttft, ttfot, itl, tpot, e2el, or a measure's full name. Raises ValueError."""
    name, colon, limit = text.partition(":")
    measure = _SHORT.get(name, name)
    if not colon or measure not in measures.TIMES:
        raise ValueError(f"{text!r} is no goal: NAME:MILLISECONDS, NAME one of {', '.join([*_SHORT, *measures.TIMES])}")
    return Goal(measure, float(limit))


def is_good(record: RequestRecord, goals: Iterable[Goal]) -> bool:
    """In an open loop, latency counts from when the request was due: a client or server that lags gains nothing."""
    if record.error is not None:
        return False
    lag = measures.request_dispatch_delay(record) or 0.0
    values = ((measures.TIMES[goal.measure](record), goal) for goal in goals)
    return all(
        value is not None and value + (lag if goal.measure in _FROM_START else 0.0) <= goal.limit
        for value, goal in values
    )


def goodput(result: RunResult, goals: Sequence[Goal]) -> Goodput | None:
    """None for a run without requests."""
    good = sum(is_good(record, goals) for record in result.records)
    fraction = wilson(good, len(result.records))
    return None if fraction is None else Goodput(tuple(goals), fraction, good / result.seconds)
