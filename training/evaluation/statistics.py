"""Figures of an evaluation and their intervals: plain functions on numbers.

Hybrid Accuracy (HAcc) is arXiv 2505.14631, Eq 13.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.formats.reasoning import Mode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModeTrial:
    """One question: scores and reply lengths of the samples in each forced mode, and the mode chosen freely."""

    think: Sequence[float]
    no_think: Sequence[float]
    think_tokens: Sequence[int]
    no_think_tokens: Sequence[int]
    chosen: Mode | None


@dataclass(frozen=True, slots=True)
class BudgetTrial:
    """One reply: whether it is right, its length in tokens, and its budget (None where it has none)."""

    correct: bool
    tokens: int
    budget: int | None


def right_mode(trial: ModeTrial, margin: float = 0.0) -> Mode:
    """The mode with the higher mean score; the shorter one where the means differ by no more than `margin`."""
    difference = mean(trial.think) - mean(trial.no_think)
    if abs(difference) > margin:
        return "think" if difference > 0 else "no_think"
    return "think" if mean(trial.think_tokens) < mean(trial.no_think_tokens) else "no_think"


def hits(trials: Sequence[ModeTrial], margin: float = 0.0) -> list[float]:
    """1 for every question in which the free choice is the right mode; HAcc is their mean.

    A reply without a mode tag chose nothing, and counts as wrong.
    """
    return [float(trial.chosen == right_mode(trial, margin)) for trial in trials]


def within(replies: Sequence[BudgetTrial], share: float) -> float:
    """The share of replies whose length is off their budget by at most `share` of it. Without a budget: not within."""
    return mean([one.budget is not None and abs(one.tokens - one.budget) <= share * one.budget for one in replies])


def slope(replies: Sequence[BudgetTrial]) -> float:
    """Least-squares slope of length on budget; replies without a budget are left out. ValueError for one budget only:
    it has no slope."""
    budgets, tokens = np.array([(one.budget, one.tokens) for one in replies if one.budget is not None], float).T
    if np.ptp(budgets) == 0:
        raise ValueError("a slope needs two different budgets")
    return float(np.polyfit(budgets, tokens, 1)[0])


def compression(pairs: Sequence[tuple[BudgetTrial, BudgetTrial]]) -> float:
    """By how much the second replies are shorter than the first, as a share of the first."""
    return 1 - mean([after.tokens for _, after in pairs]) / mean([before.tokens for before, _ in pairs])


def resampled(
    figure: Callable[[NDArray[np.intp]], float], count: int, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a figure of `count` rows, which are drawn again with replacement. A draw for which the
    figure is not defined is left out."""
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    low, high = np.nanquantile([figure(rows) for rows in drawn], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(
    figure: Callable[[Sequence[T]], float], values: Sequence[T], resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The same of a figure of values."""

    def of_rows(rows: NDArray[np.intp]) -> float:
        try:
            return figure([values[i] for i in rows.tolist()])
        except ValueError:
            return math.nan

    return resampled(of_rows, len(values), resamples, seed, level)


def bootstrap(values: Sequence[float], resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean."""
    return interval(mean, values, resamples, seed, level)


def mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("the mean of nothing")
    return sum(values) / len(values)
