"""Thresholds with a promise: pure functions on outcomes, one array element a question.

A reply is direct where the fitted gain of thinking is below the threshold. It is a loss where it is direct and wrong
and the thinking one would have been right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Points = tuple[tuple[float, float], ...]
Side = Literal["fit", "choose", "report"]
SHARES: dict[Side, float] = {"fit": 0.30, "choose": 0.45, "report": 0.25}


@dataclass(frozen=True, slots=True)
class Scored:
    """A decider's score of each question, and whether the direct and the thinking reply to it are right: 0 or 1, or the
    mean of several."""

    score: Floats
    direct: Floats
    think: Floats

    def at(self, rows: NDArray[np.intp]) -> "Scored":
        return Scored(self.score[rows], self.direct[rows], self.think[rows])


def side_of(text: str) -> Side:
    """What a question is used for: a hash of its text, which has nothing to do with that of training and test."""
    place = int.from_bytes(sha256(b"calibrate:" + text.encode()).digest()[:4], "big") / 2**32
    for side, share in SHARES.items():
        if place < share:
            return side
        place -= share
    return "report"


def fit_gain(scored: Scored) -> Points:
    """The gain of thinking as it rises with the score (isotonic regression): the mean score and the mean gain of each
    level stretch, cut to 0 to 1."""
    blocks: list[tuple[float, float, int]] = []
    order = np.argsort(scored.score, kind="stable")
    for score, gain in zip(scored.score[order], (scored.think - scored.direct)[order], strict=True):
        block = (float(score), float(gain), 1)
        while blocks and (blocks[-1][0] == block[0] or blocks[-1][1] >= block[1]):
            block = _joined(blocks.pop(), block)
        blocks.append(block)
    return tuple((score, min(1.0, max(0.0, gain))) for score, gain, _ in blocks)


def _joined(left: tuple[float, float, int], right: tuple[float, float, int]) -> tuple[float, float, int]:
    count = left[2] + right[2]
    score, gain = ((a * left[2] + b * right[2]) / count for a, b in zip(left[:2], right[:2], strict=True))
    return score, gain, count


def gains(points: Points, score: Floats) -> Floats:
    """What a server makes of scores: straight lines between the points, level beyond them."""
    known, found = (np.array(column) for column in zip(*points, strict=True))
    interpolated: Floats = np.interp(score, known, found)
    return interpolated


def to_try(gain: Floats, most: int = 64) -> list[float]:
    """What to try, from strict to lax, fixed before anything is tried: each leaves a few more replies direct."""
    steps = np.unique([*np.quantile(gain, np.linspace(0, 1, most), method="higher"), 1.0])
    return [float(step) for step in (steps[:-1] + steps[1:]) / 2]


def holds(losses: int, questions: int, most: float, confidence: float) -> bool:
    """Whether the rate of losses is at most `most`: so few would be seen with probability 1 - `confidence` at most if
    it were more (the exact binomial test)."""
    return sum(_binomial(i, questions, most) for i in range(losses + 1)) <= 1 - confidence


def _binomial(found: int, count: int, rate: float) -> float:
    ways = math.lgamma(count + 1) - math.lgamma(found + 1) - math.lgamma(count - found + 1)
    return math.exp(ways + found * math.log(rate) + (count - found) * math.log1p(-rate))


def needed(most: float, confidence: float) -> int:
    """The fewest questions on which a promise can be made: when not one of them is lost."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - most))


def losses(gain: Floats, scored: Scored, threshold: float) -> int:
    return int(np.sum((gain < threshold) & (scored.direct < 1) & (scored.think == 1)))


def safe_threshold(gain: Floats, scored: Scored, tried: Sequence[float], most: float, confidence: float) -> float:
    """The laxest threshold for which the promise can be made; 0, which always thinks, where there is none.

    They are tried in their order up to the first that fails, so that trying many takes nothing from the confidence.
    """
    found = 0.0
    for threshold in tried:
        if not holds(losses(gain, scored, threshold), len(gain), most, confidence):
            break
        found = threshold
    return found


def kept_promises(
    pairs: Scored, mean: Scored, most: float, confidence: float, *, splits: int, seed: int
) -> tuple[int, int]:
    """Of so many random splits of recorded outcomes, how often a threshold that was chosen on one part loses at most
    `most` of all questions, and of those that neither fitting nor choosing has seen. `pairs` has one reply a mode."""
    rng, count = np.random.default_rng(seed), len(pairs.score)
    first, second = (round(count * share) for share in (SHARES["fit"], SHARES["fit"] + SHARES["choose"]))
    kept = [0, 0]
    for _ in range(splits):
        fit, choose, left = np.split(rng.permutation(count), [first, second])
        points = fit_gain(mean.at(fit))
        tried = to_try(gains(points, pairs.score[fit]))
        threshold = safe_threshold(gains(points, pairs.score[choose]), pairs.at(choose), tried, most, confidence)
        for i, rows in enumerate((np.arange(count), left)):
            lost = losses(gains(points, pairs.score[rows]), pairs.at(rows), threshold)
            kept[i] += lost <= most * len(rows)
    return kept[0], kept[1]
