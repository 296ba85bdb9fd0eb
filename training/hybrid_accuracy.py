"""Hybrid Accuracy (HAcc, arXiv 2505.14631, Eq 13) and bootstrap intervals: plain functions on numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from models.formats.reasoning import Mode


@dataclass(frozen=True, slots=True)
class Trial:
    """One question: scores and reply lengths of the samples in each forced mode, and the mode chosen freely."""

    think: Sequence[float]
    no_think: Sequence[float]
    think_tokens: Sequence[int]
    no_think_tokens: Sequence[int]
    chosen: Mode | None


def right_mode(trial: Trial, margin: float = 0.0) -> Mode:
    """The mode with the higher mean score; the shorter one where the means differ by no more than `margin`."""
    difference = mean(trial.think) - mean(trial.no_think)
    if abs(difference) > margin:
        return "think" if difference > 0 else "no_think"
    return "think" if mean(trial.think_tokens) < mean(trial.no_think_tokens) else "no_think"


def hits(trials: Sequence[Trial], margin: float = 0.0) -> list[float]:
    """1 for every question in which the free choice is the right mode; HAcc is their mean.

    A reply without a mode tag chose nothing, and counts as wrong.
    """
    return [float(trial.chosen == right_mode(trial, margin)) for trial in trials]


def bootstrap(values: Sequence[float], resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean: questions are drawn again with replacement, `resamples` times."""
    rng = Random(seed)
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - level) / 2
    return means[int(tail * resamples)], means[min(resamples - 1, int((1 - tail) * resamples))]


def mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("the mean of nothing")
    return sum(values) / len(values)
