from hypothesis import given
from hypothesis import strategies as st

from models.text.stop_strings import StopMatcher

TEXTS = st.text("abc", max_size=40)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3)


def cut(text: str, lengths: list[int]) -> list[str]:
    """`text` in pieces of these lengths, the rest as the last piece."""
    pieces = []
    for length in lengths:
        pieces.append(text[:length])
        text = text[length:]
    return [*pieces, text]


def through(matcher: StopMatcher, pieces: list[str]) -> str:
    text = "".join([matcher.feed(piece) for piece in pieces])
    return text + matcher.flush()


def expected(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The slow way: the shortest beginning that ends with a stop string, cut at the longest such one."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


@given(TEXTS, STOPS, st.lists(st.integers(0, 7), max_size=12), st.booleans())
def test_any_cutting_gives_the_text_before_the_earliest_stop_string(
    text: str, stops: list[str], lengths: list[int], include: bool
) -> None:
    matcher = StopMatcher(stops, include_stop=include)
    assert (through(matcher, cut(text, lengths)), matcher.matched) == expected(text, stops, include)


@given(TEXTS, STOPS)
def test_no_more_is_held_than_can_still_become_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    released = matcher.feed(text)
    if matcher.matched is None:
        held = text[len(released) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_what_was_held_comes_out_when_it_cannot_become_a_stop_string() -> None:
    matcher = StopMatcher(["\n\nUser:"])
    assert [matcher.feed(piece) for piece in ("Hi\n", "\nUs", "e it")] == ["Hi", "", "\n\nUse it"]


def test_nothing_is_released_after_a_match() -> None:
    matcher = StopMatcher(["stop"])
    assert matcher.feed("go stop more") == "go "
    assert (matcher.feed("more"), matcher.flush(), matcher.matched) == ("", "", "stop")
