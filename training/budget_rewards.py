"""SelfBudgeter's reward (arXiv 2505.11274): plain functions on numbers.

A malformed reply earns `malformed`. Any other: P_B(b, b_max) + PreB(C, l, b), with b the declared budget, l the length
of the solution, C whether it is right, and b_max the length of the base's reply where that was right, else infinity.
The structure is the paper's by several accounts; the exact cosine and the constants are not certain.
"""

from dataclasses import dataclass
from math import cos, inf, pi


@dataclass(frozen=True, slots=True)
class Settings:
    """The fields of `training.config.BudgetReward`, which holds the defaults and checks them."""

    tolerance_first: float
    tolerance_last: float
    malformed: float
    over: float
    right: tuple[float, float]
    wrong: tuple[float, float]


def tolerance(progress: float, settings: Settings) -> float:
    """Alpha at `progress` (0 to 1) of the run: it shrinks linearly. A loose one that stayed would let b inflate."""
    return settings.tolerance_first + (settings.tolerance_last - settings.tolerance_first) * progress


def best_length(budget: int, correct: bool, alpha: float) -> float:
    """The length that earns most: (1 - alpha) b for a right reply, (1 + alpha) b for a wrong one."""
    return (1 - alpha if correct else 1 + alpha) * budget


def precise(length: int, budget: int, correct: bool, alpha: float, settings: Settings) -> float:
    """PreB: s_min outside of alpha around the budget; within, half a cosine from s_max at the best length to s_min."""
    low, high = settings.right if correct else settings.wrong
    if abs(length - budget) > alpha * budget:
        return low
    away = abs(length - best_length(budget, correct, alpha)) / (2 * alpha * budget)
    return low + (high - low) * (1 + cos(pi * away)) / 2


def modest(budget: int, most: float, settings: Settings) -> float:
    """P_B: 0 up to `most` (b_max), `over` beyond."""
    return 0.0 if budget <= most else settings.over


def reward(budget: int | None, length: int, correct: bool, most: float, alpha: float, settings: Settings) -> float:
    """The reward of a well-formed reply; `budget` None is a malformed one."""
    if budget is None:
        return settings.malformed
    return modest(budget, most, settings) + precise(length, budget, correct, alpha, settings)


def most_tokens(correct: bool, length: int) -> float:
    """b_max of a question, from the base's reply to it."""
    return length if correct else inf
