"""What a decider's scores are worth on one route: measured before, read when the server starts."""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Calibration:
    """`points` are scores, rising, and the gain of thinking at each; between two it is on the line. Without points a
    score is taken for the probability. `threshold` is the one that was chosen. `scores` is how many of the
    calibration's questions had a score in each of as many equal parts of 0 to 1. `fingerprint` says what it was made
    for: a digest by part."""

    points: tuple[tuple[float, float], ...] = ()
    threshold: float | None = None
    scores: tuple[int, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: str, decider: str) -> "Calibration":
        """That of one decider. Raises `ValueError` where the file holds none."""
        try:
            held = json.loads(Path(file).read_text(encoding="utf-8"))["deciders"]
            own = held.get(decider)
            points = () if own is None else tuple((float(score), float(gain)) for score, gain in own["points"])
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no calibration: {error!r}") from error
        if own is None:
            raise ValueError(f"{file}: no calibration of decider {decider}; it holds: {', '.join(held) or 'none'}")
        return cls(points, own.get("threshold"), tuple(own.get("scores", ())), own.get("fingerprint", {}))

    def p_think(self, score: float) -> float:
        if not self.points:
            return score
        at = bisect_right(self.points, score, key=lambda point: point[0])
        if at in (0, len(self.points)):
            return self.points[max(0, at - 1)][1]
        (low, before), (high, after) = self.points[at - 1], self.points[at]
        return before + (after - before) * (score - low) / (high - low)
