"""How fast an engine writes: averages worked by hand."""

import math

import pytest

from controllers.generation.throughput import MEMORY, Clock, ThroughputEstimate


def paced(first: float, tokens: int, seconds: float) -> ThroughputEstimate:
    pace = ThroughputEstimate()
    pace.began(first)
    pace.wrote(tokens, seconds)
    return pace


def test_nothing_is_said_before_anything_was_measured() -> None:
    pace = ThroughputEstimate()
    assert (pace.ahead(10), pace.remaining(10, 0, 0.0)) == (None, None)


def test_the_newest_first_token_has_a_fifth_of_the_weight_and_stretches_weigh_by_their_tokens() -> None:
    pace = paced(1.0, 10, 1.0)  # 0.1 s a token
    pace.began(2.0)
    pace.wrote(MEMORY, 0.2 * MEMORY)  # as long as the memory: the old counts for 1/e
    old = 1 / math.e
    assert (pace.first, pace.token) == (pytest.approx(1.2), pytest.approx(0.1 * old + 0.2 * (1 - old)))
    assert pace.ahead(100) == pytest.approx(1.2 + 100 * (0.2 - 0.1 * old))


def test_two_short_stretches_weigh_as_much_as_a_long_one() -> None:
    once, twice = paced(1.0, 10, 1.0), paced(1.0, 10, 1.0)
    once.wrote(20, 10.0)
    twice.wrote(10, 5.0)
    twice.wrote(10, 5.0)
    assert once.token == pytest.approx(twice.token)


def test_a_reply_of_one_token_says_nothing_of_the_pace() -> None:
    pace = paced(1.0, 0, 0.0)
    assert (pace.first, pace.token) == (1.0, None)


def test_a_replys_own_pace_counts_once_it_has_run_for_a_while() -> None:
    pace = paced(1.0, 10, 1.0)
    assert pace.remaining(50, 15, 15.0) == pytest.approx(5.0)
    assert pace.remaining(50, 16, 8.0) == pytest.approx(25.0)


def test_a_clock_tells_each_token_once_and_only_the_replys_own_first_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("controllers.generation.throughput.time.perf_counter", lambda: now[0])
    pace, clock = ThroughputEstimate(), Clock()
    clock.report(0)  # nothing runs yet
    clock.asked(pace)
    now[0] += 2
    clock.began(1, first=True)
    now[0] += 1
    clock.report(11)
    assert (pace.first, pace.token) == (2.0, 0.1)
    clock.report(11)
    assert (pace.token, clock.written(11)) == (0.1, (10, 1.0))
    clock.asked(pace)
    now[0] += 50
    clock.began(31, first=False)
    assert pace.first == 2.0
    clock.asked(None)  # another engine's turn
    clock.began(40, first=True)
    now[0] += 9
    clock.report(41)
    assert (pace.first, pace.token) == (2.0, 0.1)
