"""How far the scores that are served have moved from those that the calibration saw."""

import math
from collections.abc import Sequence

MEMORY = 1000  # decisions after which an old one counts for a third
ENOUGH = 100  # decisions before there is anything to say


class Drift:
    """The distance of two histograms over 0 to 1: half the sum of the differences of their shares."""

    def __init__(self, expected: Sequence[int]) -> None:
        self._expected = [count / sum(expected) for count in expected]
        self._seen = [0.0] * len(expected)
        self._decisions = 0

    def saw(self, score: float) -> None:
        self._decisions += 1
        self._seen = [weight * (1 - 1 / MEMORY) for weight in self._seen]
        self._seen[min(len(self._seen) - 1, int(score * len(self._seen)))] += 1.0

    def distance(self) -> float:
        """0: the same; 1: nothing in common. NaN while little was seen."""
        if self._decisions < ENOUGH:
            return math.nan
        total = sum(self._seen)
        return sum(abs(seen / total - share) for seen, share in zip(self._seen, self._expected, strict=True)) / 2
