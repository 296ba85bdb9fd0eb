"""How well lengths keep to budgets, and what is saved: plain functions on numbers, with bootstrap intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from training.hybrid_accuracy import mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured:
    """One reply: whether it is right, its length in tokens, and its budget (None where it has none)."""

    correct: bool
    tokens: int
    budget: int | None


def within(replies: Sequence[Measured], share: float) -> float:
    """The share of replies whose length is off their budget by at most `share` of it. Without a budget: not within."""
    return mean([one.budget is not None and abs(one.tokens - one.budget) <= share * one.budget for one in replies])


def slope(replies: Sequence[Measured]) -> float:
    """Least-squares slope of length on budget; replies without a budget are left out. ValueError for one budget only:
    it has no slope."""
    points = [(one.budget, one.tokens) for one in replies if one.budget is not None]
    middle = mean([budget for budget, _ in points])
    spread = sum((budget - middle) ** 2 for budget, _ in points)
    if not spread:
        raise ValueError("a slope needs two different budgets")
    return sum((budget - middle) * tokens for budget, tokens in points) / spread


def compression(pairs: Sequence[tuple[Measured, Measured]]) -> float:
    """By how much the second replies are shorter than the first, as a share of the first."""
    return 1 - mean([after.tokens for _, after in pairs]) / mean([before.tokens for before, _ in pairs])


def interval(
    figure: Callable[[Sequence[T]], float], values: Sequence[T], resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of any figure: values are drawn again with replacement, `resamples` times."""
    rng = Random(seed)
    found = sorted(figure(rng.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - level) / 2
    return found[int(tail * resamples)], found[min(resamples - 1, int((1 - tail) * resamples))]
