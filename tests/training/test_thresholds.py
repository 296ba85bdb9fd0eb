"""Thresholds with a promise: the law of the outcomes is stated here, so that a promise can be held against it."""

import math

import numpy as np
import pytest

from training.evaluation.thresholds import (
    SHARES,
    Scored,
    fit_gain,
    gains,
    holds,
    kept_promises,
    losses,
    needed,
    safe_threshold,
    side_of,
    to_try,
)

LOSS, CONFIDENCE = 0.02, 0.95


def drawn(count: int, seed: int, *, think: float = 0.9) -> Scored:
    """The higher the score, the less often a direct reply is right; a thinking one is right at a fixed rate."""
    rng = np.random.default_rng(seed)
    score = rng.random(count)
    return Scored(score, 1.0 * (rng.random(count) > score**1.5), 1.0 * (rng.random(count) < think))


def chosen(outcomes: Scored, first: int, last: int) -> tuple[tuple[tuple[float, float], ...], float]:
    """Points fitted on the first questions, and the threshold chosen on those up to the last."""
    rows = np.arange(len(outcomes.score))
    fit, choose = outcomes.at(rows[:first]), outcomes.at(rows[first:last])
    points = fit_gain(fit)
    tried = to_try(gains(points, fit.score))
    return points, safe_threshold(gains(points, choose.score), choose, tried, LOSS, CONFIDENCE)


def test_the_promise_holds_for_the_law_in_95_of_100_draws():
    law, kept, direct = drawn(200_000, 1), 0, []
    for seed in range(100):
        points, threshold = chosen(drawn(1500, 1000 + seed), 600, 1500)
        gain = gains(points, law.score)
        kept += losses(gain, law, threshold) <= LOSS * len(gain)
        direct.append(np.mean(gain < threshold))
    assert kept >= 95
    assert np.mean(direct) > 0.1, "it is not kept by always thinking"


def test_the_promise_holds_in_95_of_100_splits_of_the_same_outcomes():
    outcomes = drawn(2000, 3)
    on_all, on_left = kept_promises(outcomes, outcomes, LOSS, CONFIDENCE, splits=100, seed=4)
    assert on_all >= 95
    assert on_left >= 90, "500 questions have luck of their own"


def test_a_threshold_fitted_without_the_test_breaks_the_promise():
    """What the exact test is for: the laxest threshold whose losses are few enough on the choosing part."""
    law, kept = drawn(200_000, 1), 0
    for seed in range(100):
        outcomes = drawn(1500, 1000 + seed)
        points = fit_gain(outcomes.at(np.arange(600)))
        choose = outcomes.at(np.arange(600, 1500))
        gain = gains(points, choose.score)
        fine = [t for t in to_try(gains(points, outcomes.score[:600])) if losses(gain, choose, t) <= 18]
        kept += losses(gains(points, law.score), law, max(fine, default=0.0)) <= LOSS * 200_000
    assert kept < 80


@pytest.mark.parametrize(("most", "confidence", "fewest"), [(0.05, 0.95, 59), (0.02, 0.95, 149), (0.01, 0.95, 299)])
def test_too_few_questions_always_think(most, confidence, fewest):
    assert needed(most, confidence) == fewest
    assert holds(0, fewest, most, confidence)
    assert not holds(0, fewest - 1, most, confidence)
    few = drawn(fewest - 1, 5)
    assert safe_threshold(few.score, few, to_try(few.score), most, confidence) == 0.0


def test_the_exact_test_is_the_binomial_tail():
    for losses_seen, expected in ((4, True), (5, True), (6, False)):
        tail = sum(math.comb(523, i) * 0.02**i * 0.98 ** (523 - i) for i in range(losses_seen + 1))
        assert holds(losses_seen, 523, 0.02, 0.95) == (tail <= 0.05) == expected


def test_trying_stops_at_the_first_threshold_that_fails():
    score = np.array([0.1] * 400 + [0.2] * 400 + [0.3] * 400)
    right = np.array([1.0] * 400 + [0.0] * 400 + [1.0] * 400)
    one = Scored(score, right, np.ones(1200))
    assert safe_threshold(score, one, (0.15, 0.25, 0.35), LOSS, CONFIDENCE) == 0.15


def test_the_gain_rises_with_the_score_and_lies_between_0_and_1():
    points = fit_gain(drawn(3000, 6))
    scores, found = zip(*points, strict=True)
    assert list(scores) == sorted(set(scores))
    assert list(found) == sorted(found)
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(0.9, abs=0.1)
    middle = gains(points, np.array([0.5]))[0]
    assert middle == pytest.approx(0.9 - (1 - 0.5**1.5), abs=0.1)


def test_a_score_that_says_nothing_is_level():
    rng = np.random.default_rng(7)
    one = Scored(np.full(100, 0.5), 1.0 * (rng.random(100) < 0.5), np.ones(100))
    assert len(fit_gain(one)) == 1
    assert gains(fit_gain(one), np.array([0.0, 1.0])) == pytest.approx(np.mean(1 - one.direct))


def test_every_question_has_one_side_whoever_asks():
    sides = [side_of(f"question {i}") for i in range(10_000)]
    for side, share in SHARES.items():
        assert sides.count(side) / 10_000 == pytest.approx(share, abs=0.02)
    assert sides == [side_of(f"question {i}") for i in range(10_000)]
