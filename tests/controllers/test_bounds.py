"""Where a stretch must end: numbers worked by hand."""

from hypothesis import given
from hypothesis import strategies as st

from controllers.generation.bounds import (
    NEVER,
    Bounds,
    CutStyle,
    between_sentences,
    declared_budget,
    ends_line,
    reply_bounds,
    thinking_bounds,
)

GRACEFUL = CutStyle(phrase=20, closing=1, tolerance=32)
HARD = CutStyle(phrase=20, closing=1, tolerance=None)


def test_without_budget_and_reserve_nothing_ends() -> None:
    bounds = thinking_bounds(1, None, 500, 0, GRACEFUL)
    assert (bounds.limit, bounds.end, bounds.cut(10**6, True)) == (None, NEVER, None)
    assert reply_bounds(1, None, 500, 0, GRACEFUL).limit is None


def test_the_phrase_ends_before_the_budget_does_and_a_line_end_may_come_earlier() -> None:
    # opened at 1, 100 tokens: the last is token 100; a phrase of 20 begins at 81, a line end counts from 81 - 32 on
    assert thinking_bounds(1, 100, 500, 0, GRACEFUL) == Bounds(1, window=49, phrase=81, end=101)


def test_a_line_end_is_never_taken_in_the_first_half() -> None:
    # 50 tokens: the phrase begins at 31, half of what is before it is 15, so from 16 on
    assert thinking_bounds(1, 50, 500, 0, GRACEFUL) == Bounds(1, window=16, phrase=31, end=51)


def test_a_phrase_that_would_take_more_than_half_of_a_budget_is_left_out() -> None:
    assert thinking_bounds(0, 40, 500, 0, GRACEFUL).phrase == 20
    assert thinking_bounds(0, 39, 500, 0, GRACEFUL) == Bounds(0, window=20, phrase=39, end=39)


def test_a_hard_manner_knows_only_the_end() -> None:
    bounds = thinking_bounds(3, 100, 500, 0, HARD)
    assert (bounds.hard, bounds.window, bounds.phrase, bounds.end) == (True, 103, 103, 103)


def test_the_reserve_ends_thinking_where_it_comes_before_the_budget() -> None:
    # 150 tokens in all, 40 for the answer, 1 for the tag: thinking ends at 109
    assert thinking_bounds(1, 200, 150, 40, HARD) == Bounds(1, 109, 109, 109, "reserve")
    assert thinking_bounds(1, 108, 150, 40, HARD).by == "budget"
    assert thinking_bounds(1, None, 150, 40, HARD).limit == 108


def test_a_reserve_that_leaves_no_room_ends_thinking_at_once() -> None:
    assert thinking_bounds(1, None, 30, 40, GRACEFUL) == Bounds(1, 1, 1, 1, "reserve")


def test_a_whole_reply_keeps_its_reserve_behind_the_phrase() -> None:
    # 100 tokens from 5 on: end 105, answer from 95, phrase of 20 from 75, line ends from 43
    assert reply_bounds(5, 100, 500, 10, GRACEFUL) == Bounds(5, window=43, phrase=75, end=105)
    assert reply_bounds(5, 100, 500, 0, GRACEFUL).hard
    assert reply_bounds(5, 31, 500, 10, GRACEFUL) == Bounds(5, window=6, phrase=6, end=36)  # one token, then the phrase
    assert reply_bounds(5, 21, 500, 10, GRACEFUL) == Bounds(5, window=5, phrase=5, end=26)  # phrase and one of answer
    assert reply_bounds(5, 20, 500, 10, GRACEFUL).hard  # nothing would follow the phrase
    assert reply_bounds(0, 100, 60, 10, HARD) == Bounds(0, 60, 60, 60, "reserve")


def test_the_kind_of_a_cut_follows_from_where_it_is_made() -> None:
    bounds = Bounds(0, window=50, phrase=80, end=100)
    assert [bounds.cut(at, True) for at in (49, 50, 80, 100)] == [None, "line_end", "wrap_up", "hard"]
    assert [bounds.cut(at, False) for at in (50, 79, 80, 99, 100)] == [None, None, "wrap_up", "wrap_up", "hard"]
    assert bounds.without_grace() == Bounds(0, 100, 100, 100)


def test_a_line_ends_with_a_newline_or_a_full_width_stop() -> None:
    assert [ends_line(text) for text in ("a\n", "a\n  ", "好。", "a", "a.", "")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_sentence_ends_where_space_follows_its_point() -> None:
    assert between_sentences("it is 3.", " So")
    assert between_sentences("Why?", "\n")
    assert not between_sentences("3.", "14")
    assert not between_sentences("so", " it")


def test_a_declared_budget_is_a_number_or_nothing() -> None:
    assert [declared_budget(text) for text in ("250", " 7\n", "many", "-3", "", "²", "1" * 10)] == [250, 7, *[None] * 5]


@given(
    opened=st.integers(0, 50),
    budget=st.none() | st.integers(0, 300),
    most=st.integers(1, 400),
    reserve=st.integers(0, 100),
    phrase=st.integers(0, 40),
    closing=st.integers(1, 3),
    tolerance=st.none() | st.integers(0, 64),
)
def test_bounds_are_in_order_and_keep_both_limits(
    opened: int, budget: int | None, most: int, reserve: int, phrase: int, closing: int, tolerance: int | None
) -> None:
    manner = CutStyle(phrase, closing, tolerance)
    for bounds in (thinking_bounds(opened, budget, most, reserve, manner),):
        assert opened <= bounds.window <= bounds.phrase <= bounds.end
        assert budget is None or bounds.end <= opened + budget
        assert not reserve or bounds.end <= max(opened, most - reserve - closing)
        assert bounds.phrase == bounds.end or bounds.phrase + phrase == bounds.end
    whole = reply_bounds(opened, budget, most, reserve, manner)
    assert whole.window <= whole.phrase <= whole.end
    assert budget is None or whole.end <= opened + budget
    assert whole.phrase == whole.end or whole.phrase == max(opened, whole.end - phrase - reserve)
    assert whole.phrase == whole.end or whole.phrase + phrase < whole.end
