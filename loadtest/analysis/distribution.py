"""Plain numbers: percentiles, intervals, fronts. Every function here is exact for the sample it is given."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Final

_Z95: Final = NormalDist().inv_cdf(0.975)
_T95: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t, two-sided 95 %, for 1 to 15 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A sample in ten numbers. `std` is the sample's (n - 1), 0 for a single value."""

    count: int
    mean: float
    std: float
    min: float
    p25: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def distribution(values: Iterable[float]) -> Distribution | None:
    """None for an empty sample: no value is not the value 0.

    Percentiles are exact: nothing is binned. Between two samples they are linear (Hyndman and Fan's definition 7).
    """
    import numpy as np

    sample = np.fromiter(values, float)
    if not sample.size:
        return None
    percentiles = np.percentile(sample, (0, 25, 50, 90, 95, 99, 100)).tolist()
    std = float(sample.std(ddof=1)) if sample.size > 1 else 0.0
    return Distribution(sample.size, float(sample.mean()), std, *percentiles)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval | None:
    """A proportion's Wilson score interval (Wilson 1927, without continuity correction); None for no trials."""
    if not trials:
        return None
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_ratio(ratios: Sequence[float]) -> Interval:
    """The geometric mean of positive ratios with Student's t interval of their logarithms.

    One ratio alone has no interval: low and high are then not a number.
    """
    logs = [math.log(ratio) for ratio in ratios]
    centre = fmean(logs)
    if len(logs) < 2:
        return Interval(math.exp(centre), math.nan, math.nan)
    half = t95(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def t95(freedom: int) -> float:
    """Student's t, two-sided 95 %. Past the table, the normal value with the next term of its expansion."""
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    return _Z95 + (_Z95**3 + _Z95) / (4 * freedom)


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, gain) that no other point beats: cheapest first, each dearer one gains more."""
    best = -math.inf
    kept: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if gain > best:
            kept.append((cost, gain))
            best = gain
    return kept
