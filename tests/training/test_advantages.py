"""HGPO's advantages against numbers worked by hand."""

import pytest
import torch
from torch.testing import assert_close

from training.algorithms.hgpo import (
    HgpoAdvantage,
    discounted,
    inter_scores,
    intra_scores,
    leave_one_out,
    normalised,
    token_advantages,
)

# One group of four: think earned 1 and 0, no_think earned 0 and 0. Mean 0.5 against 0.
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
MASK = torch.tensor([[[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]]])


def test_the_better_mode_gets_the_inter_score():
    assert inter_scores(REWARDS, delta=0.2).tolist() == [[1, 1, 0, 0]]


def test_a_lead_of_delta_is_not_enough_for_thinking():
    assert inter_scores(REWARDS, delta=0.5).tolist() == [[0, 0, 1, 1]]


def test_equal_modes_mean_no_thinking_even_without_delta():
    assert inter_scores(torch.ones(1, 4), delta=0.0).tolist() == [[0, 0, 1, 1]]


def test_every_tied_best_of_a_mode_gets_the_intra_score():
    assert intra_scores(REWARDS).tolist() == [[1, 0, 1, 1]]


def test_the_first_best_alone_can_get_the_intra_score():
    assert intra_scores(REWARDS, ties="first").tolist() == [[1, 0, 1, 0]]


def test_normalised_scores_use_the_population_deviation():
    # 1, 0, 1, 1: mean 3/4, variance 3/16, so 1/4 / (sqrt(3)/4) = 1/sqrt(3) and -3/4 / (sqrt(3)/4) = -sqrt(3)
    expected = torch.tensor([[3**-0.5, -(3**0.5), 3**-0.5, 3**-0.5]])
    assert_close(normalised(torch.tensor([[1.0, 0.0, 1.0, 1.0]])), expected)


def test_normalised_scores_can_use_the_sample_deviation():
    # 1, 0, 1, 1: sample variance 3/4 / 3 = 1/4, deviation 1/2
    assert_close(
        normalised(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), sample_std=True), torch.tensor([[0.5, -1.5, 0.5, 0.5]])
    )


def test_equal_scores_have_no_advantage():
    assert normalised(torch.ones(1, 4)).tolist() == [[0, 0, 0, 0]]


def test_leave_one_out_compares_with_the_others():
    # 1 - mean(0, 1, 1) = 1/3; 0 - mean(1, 1, 1) = -1
    assert_close(leave_one_out(torch.tensor([[1.0, 0.0, 1.0, 1.0]])), torch.tensor([[1 / 3, -1.0, 1 / 3, 1 / 3]]))


def test_the_inter_advantage_reaches_the_mode_token_only():
    # inter 1, 1, 0, 0 -> +1, +1, -1, -1 on token 0; intra 1, 0, 1, 1 -> 1/sqrt(3), -sqrt(3), 1/sqrt(3), 1/sqrt(3)
    a, b = 3**-0.5, -(3**0.5)
    expected = torch.tensor([[[a + 1, a, a], [b + 1, b, 0], [a - 1, 0, 0], [a - 1, a, 0]]])
    assert_close(token_advantages(REWARDS, MASK, HgpoAdvantage()), expected)


def test_alpha_weighs_the_inter_advantage():
    half = token_advantages(REWARDS, MASK, HgpoAdvantage(alpha=0.5)) - token_advantages(
        REWARDS, MASK, HgpoAdvantage(alpha=0)
    )
    assert half[..., 0].tolist() == [[0.5, 0.5, -0.5, -0.5]]
    assert not half[..., 1:].any()


def test_rloo_takes_leave_one_out_of_both_scores():
    # inter 1, 1, 0, 0 -> 1 - 1/3 = 2/3 and 0 - 2/3 = -2/3; intra 1, 0, 1, 1 -> 1/3, -1, 1/3, 1/3
    found = token_advantages(REWARDS, MASK, HgpoAdvantage(estimator="rloo"))
    expected = torch.tensor([[[1.0, 1 / 3, 1 / 3], [-1 / 3, -1.0, 0], [-1 / 3, 0, 0], [-1 / 3, 1 / 3, 0]]])
    assert_close(found, expected)


def test_reinforce_discounts_the_score_from_the_last_token():
    # a score of 1 at the third token, gamma 1/2: 1/4, 1/2, 1
    assert discounted(torch.ones(1, 1), torch.ones(1, 1, 3), 0.5).tolist() == [[[0.25, 0.5, 1.0]]]


def test_reinforce_adds_the_plain_inter_score_at_the_mode_token():
    found = token_advantages(REWARDS, MASK, HgpoAdvantage(estimator="reinforce++", gamma=0.5))
    expected = [[[1.25, 0.5, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 1.0, 0.0]]]
    assert_close(found, torch.tensor(expected))


def test_groups_do_not_mix():
    both = token_advantages(torch.cat([REWARDS, torch.ones(1, 4)]), MASK.expand(2, -1, -1), HgpoAdvantage())
    assert_close(both[:1], token_advantages(REWARDS, MASK, HgpoAdvantage()))
    assert both[1, :, 1:].abs().sum() == 0
    assert both[1, :, 0].tolist() == [-1, -1, 1, 1]


def test_an_odd_group_is_refused():
    with pytest.raises(ValueError, match="even number"):
        inter_scores(torch.ones(1, 3), 0.0)
