"""Adherence figures against numbers worked by hand."""

from random import Random

import pytest

from training.evaluation.statistics import BudgetTrial, compression, interval, slope, within


def test_within_counts_lengths_off_by_at_most_a_share_of_the_budget():
    replies = [
        BudgetTrial(True, 90, 100),
        BudgetTrial(True, 150, 100),
        BudgetTrial(True, 151, 100),
        BudgetTrial(True, 5, None),
    ]
    assert within(replies, 0.1) == 0.25
    assert within(replies, 0.5) == 0.5


def test_a_slope_by_hand():
    # budgets 10, 20, 30, lengths 8, 20, 26: ((-10) 8 + 10 x 26) / 200
    points = [
        BudgetTrial(True, 8, 10),
        BudgetTrial(True, 20, 20),
        BudgetTrial(True, 26, 30),
        BudgetTrial(True, 99, None),
    ]
    assert slope(points) == pytest.approx(0.9)


def test_one_budget_has_no_slope():
    with pytest.raises(ValueError, match="two different"):
        slope([BudgetTrial(True, 8, 10), BudgetTrial(True, 9, 10)])


def test_compression_is_the_share_of_the_first_that_is_saved():
    pairs = [
        (BudgetTrial(True, 60, None), BudgetTrial(True, 20, 20)),
        (BudgetTrial(True, 40, None), BudgetTrial(True, 20, 20)),
    ]
    assert compression(pairs) == pytest.approx(0.6)


def test_an_interval_holds_the_figure_and_narrows_with_more_values():
    rng = Random(0)
    few = [BudgetTrial(True, b + rng.randint(-3, 3), b) for b in rng.choices(range(20, 60), k=30)]
    many = [BudgetTrial(True, b + rng.randint(-3, 3), b) for b in rng.choices(range(20, 60), k=600)]
    wide, narrow = interval(slope, few, 200, 0), interval(slope, many, 200, 0)
    assert wide[0] < 1 < wide[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
