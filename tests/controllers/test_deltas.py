"""A delta's tokens one by one."""

from hypothesis import given
from hypothesis import strategies as st

from controllers.generation.deltas import single
from models.engines.base import Delta


@given(st.integers(0, 5), st.integers(0, 9))
def test_what_a_delta_says_of_the_prompt_and_of_its_end_is_said_once(tokens: int, cached: int) -> None:
    ids = tuple(range(tokens))
    delta = Delta(ids, tuple(map(str, ids)), finish="stop", stopped_by="x", cached_tokens=cached)
    steps = list(single(delta))
    assert [step.token_ids for step in steps] == ([(one,) for one in ids] or [()])
    assert "".join(step.text for step in steps) == delta.text
    assert [step.cached_tokens for step in steps] == [cached, *[0] * (len(steps) - 1)]
    assert [step.finish for step in steps] == [*[None] * (len(steps) - 1), "stop"]
    assert [step.stopped_by for step in steps] == [*[None] * (len(steps) - 1), "x"]
