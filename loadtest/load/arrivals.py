"""When requests start. Plain functions of numbers and a seed: no clock here.

Closed loop: so many in flight, the next starts when one ends. Open loop: starts are fixed beforehand, whatever the
server does, so that a slow server cannot slow its own load down; `offsets` are seconds from the start of the run, one
for each request, rising.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from loadtest.records import LoadRequest


@dataclass(frozen=True, slots=True)
class Concurrent:
    """Closed loop: `concurrency` in flight. The first ones start spread over `ramp` seconds instead of all at once."""

    concurrency: int
    ramp: float = 0.0

    def first_starts(self) -> list[float]:
        return [self.ramp * slot / self.concurrency for slot in range(self.concurrency)]


@dataclass(frozen=True, slots=True)
class Constant:
    """Open loop: `rate` requests a second, evenly."""

    rate: float

    def offsets(self, requests: Sequence[LoadRequest]) -> list[float]:
        return [number / self.rate for number in range(len(requests))]


@dataclass(frozen=True, slots=True)
class Gamma:
    """Open loop: gaps drawn from a gamma distribution with mean 1 / `rate`.

    `burstiness` is the distribution's shape, as in vLLM's benchmark: 1 is a Poisson process, below 1 arrivals come in
    bursts, above 1 they even out. The coefficient of variation of the gaps is burstiness ** -0.5.
    """

    rate: float
    burstiness: float = 1.0
    seed: int = 0

    def offsets(self, requests: Sequence[LoadRequest]) -> list[float]:
        draw = random.Random(f"arrivals {self.seed}")
        scale = 1 / (self.rate * self.burstiness)
        gaps = [draw.gammavariate(self.burstiness, scale) for _ in requests]
        return list(accumulate([0.0, *gaps[:-1]])) if gaps else []


def poisson(rate: float, seed: int = 0) -> Gamma:
    """Open loop: independent arrivals, `rate` a second on average."""
    return Gamma(rate, 1.0, seed)


@dataclass(frozen=True, slots=True)
class Trace:
    """Open loop: the requests' own times (`LoadRequest.at`), replayed `speed` times as fast from the first one on."""

    speed: float = 1.0

    @property
    def rate(self) -> float | None:
        return None

    def offsets(self, requests: Sequence[LoadRequest]) -> list[float]:
        """Raises ValueError if a request has no time, or if the times do not rise."""
        times = [request.at for request in requests if request.at is not None]
        if len(times) != len(requests):
            raise ValueError(f"trace replay: {len(requests) - len(times)} requests have no time ('at')")
        if any(later < earlier for earlier, later in pairwise(times)):
            raise ValueError("trace replay: times ('at') must rise from line to line")
        return [(time - times[0]) / self.speed for time in times]


ArrivalPlan = Concurrent | Constant | Gamma | Trace


def synchronous() -> Concurrent:
    """Closed loop: one request at a time."""
    return Concurrent(1)


def describe(arrivals: ArrivalPlan) -> str:
    """In words, for reports."""
    match arrivals:
        case Concurrent(1):
            return "synchronous"
        case Concurrent(concurrency):
            return f"{concurrency} concurrent"
        case Constant(rate):
            return f"constant {rate:g}/s"
        case Gamma(rate, 1.0):
            return f"Poisson {rate:g}/s"
        case Gamma(rate, burstiness):
            return f"gamma {rate:g}/s, burstiness {burstiness:g}"
        case Trace(speed):
            return "trace" if speed == 1 else f"trace at {speed:g}x"
