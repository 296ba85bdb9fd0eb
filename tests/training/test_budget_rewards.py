"""SelfBudgeter's reward against numbers worked by hand. Shown at alpha 0.5 with a budget of 100."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.algorithms.parts import CheckedReply
from training.algorithms.selfbudgeter import BudgetReward, best_length, earned, modest, precise, tolerance
from training.data.budget_replies import BudgetReply
from training.data.questions import TrainingQuestion

PAPER = BudgetReward()


def reward(budget, length, correct, limit, alpha):
    reply = BudgetReply(budget, length, "", True)
    question = TrainingQuestion("", limit=None if limit == inf else limit)
    return earned(CheckedReply(question, reply, float(correct)), alpha, PAPER)


def test_the_tolerance_shrinks_linearly_from_6_to_a_tenth():
    assert tolerance(0, PAPER) == 6.0
    assert tolerance(0.5, PAPER) == pytest.approx(3.05)
    assert tolerance(1, PAPER) == pytest.approx(0.1)


def test_a_right_reply_is_best_short_of_its_budget_and_a_wrong_one_beyond():
    assert best_length(100, True, 0.1) == pytest.approx(90)
    assert best_length(100, False, 0.1) == pytest.approx(110)


@pytest.mark.parametrize(
    ("length", "correct", "worth"),
    [
        (50, True, 1.0),  # the best length of a right reply: (1 - 0.5) x 100
        (100, True, 0.75),  # half of the way from 50 to 150: cos(pi/2) = 0
        (75, True, 0.5 + 0.5 * (1 + 2**-0.5) / 2),  # a quarter of the way: cos(pi/4)
        (150, True, 0.5),  # the far edge: cos(pi) = -1
        (151, True, 0.5),
        (49, True, 0.5),  # outside of the tolerance on the short side
        (150, False, 0.0),  # the best length of a wrong reply: (1 + 0.5) x 100
        (100, False, -0.25),
        (50, False, -0.5),
        (200, False, -0.5),
    ],
)
def test_precision_by_hand(length, correct, worth):
    assert precise(length, 100, correct, 0.5, PAPER) == pytest.approx(worth)


def test_a_budget_above_the_bases_own_length_costs_four_tenths():
    assert modest(100, 100, PAPER) == 0
    assert modest(101, 100, PAPER) == -0.4
    assert modest(10**6, inf, PAPER) == 0


def test_a_reward_adds_both_and_a_malformed_reply_earns_minus_one():
    assert reward(100, 50, True, 90, 0.5) == pytest.approx(0.6)
    assert reward(100, 50, True, inf, 0.5) == pytest.approx(1.0)
    assert reward(None, 50, True, inf, 0.5) == -1.0


@given(st.integers(1, 9999), st.integers(0, 9999), st.integers(0, 9999), st.floats(0.1, 6.0))
def test_a_right_reply_over_its_limit_never_loses_to_a_wrong_one(budget, length, other, alpha):
    assert reward(budget, length, True, 0, alpha) >= reward(budget, other, False, inf, alpha) - 1e-12
