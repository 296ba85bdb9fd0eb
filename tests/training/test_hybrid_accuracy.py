"""Hybrid Accuracy and its intervals, by hand."""

import pytest

from training.evaluation.statistics import ModeTrial, bootstrap, hits, mean, right_mode


def trial(think, no_think, chosen="think", think_tokens=(20,), no_think_tokens=(5,)):
    return ModeTrial(think, no_think, think_tokens, no_think_tokens, chosen)


def test_the_mode_with_the_higher_mean_is_right():
    assert right_mode(trial([1, 1], [1, 0])) == "think"
    assert right_mode(trial([0, 0], [1, 0])) == "no_think"


def test_the_shorter_of_two_equal_modes_is_right():
    assert right_mode(trial([1, 1], [1, 1])) == "no_think"
    assert right_mode(trial([1, 1], [1, 1], think_tokens=(3,))) == "think"


def test_modes_nearer_than_the_margin_are_equal():
    assert right_mode(trial([1, 1], [1, 0]), margin=0.5) == "no_think"


def test_hybrid_accuracy_counts_the_free_choices_that_are_right():
    trials = [trial([1], [0], "think"), trial([1], [0], "no_think"), trial([1], [1], "no_think"), trial([1], [0], None)]
    assert hits(trials) == [1, 0, 1, 0]


def test_the_interval_of_equal_values_is_a_point():
    assert bootstrap([1.0] * 10, 100, 0) == (1.0, 1.0)


def test_the_interval_agrees_with_the_normal_approximation():
    # 400 values, half 1: standard error sqrt(.25 / 400) = .025, so about .5 +- .049
    low, high = bootstrap([0.0, 1.0] * 200, 2000, 0)
    assert low == pytest.approx(0.451, abs=0.01)
    assert high == pytest.approx(0.549, abs=0.01)


def test_the_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        mean([])
