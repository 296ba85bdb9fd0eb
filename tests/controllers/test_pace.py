"""How fast an engine writes: averages worked by hand."""

import pytest

from controllers.pace import Pace


def test_nothing_is_said_before_anything_was_measured() -> None:
    pace = Pace()
    assert (pace.ahead(10), pace.remaining(10, 0, 0.0)) == (None, None)


def test_the_newest_reply_has_a_fifth_of_the_weight() -> None:
    pace = Pace()
    pace.measured(first=1.0, tokens=10, seconds=1.0)  # 0.1 s a token
    pace.measured(first=2.0, tokens=10, seconds=2.0)  # 0.2
    assert (pace.first, pace.token) == (pytest.approx(1.2), pytest.approx(0.12))
    assert pace.ahead(100) == pytest.approx(13.2)


def test_a_reply_of_one_token_says_nothing_of_the_pace() -> None:
    pace = Pace()
    pace.measured(first=1.0, tokens=0, seconds=0.0)
    assert (pace.first, pace.token) == (1.0, None)


def test_a_replys_own_pace_counts_once_it_has_run_for_a_while() -> None:
    pace = Pace()
    pace.measured(first=1.0, tokens=10, seconds=1.0)
    assert pace.remaining(50, 15, 15.0) == pytest.approx(5.0)
    assert pace.remaining(50, 16, 8.0) == pytest.approx(25.0)
