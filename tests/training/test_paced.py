"""Paced thoughts: every one is right whatever its pace, and a faster pace is shorter."""

from random import Random
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from training.tasks import TASKS
from training.tasks.chain import QUESTION, apply
from training.tasks.paced import write

STEPS = ["a*3", "b-2", "c-8", "d-7"]


def test_by_hand():
    assert write(2, STEPS, 0.0, Random(0)) == "2 a*3=6 b-2=4 c-8=6 d-7=9"
    hasty = write(2, STEPS, 1.0, Random(0)).split()
    assert all(
        said in (f"{step[0]}={value}", value) for said, step, value in zip(hasty[1:], STEPS, "6469", strict=True)
    )


@given(st.integers(1, 12), st.integers(0, 10**9))
def test_every_step_is_right_and_none_is_left_out(difficulty, seed):
    text, thought, answer = TASKS["paced"].draw(difficulty, Random(seed))
    match = QUESTION.fullmatch(text)
    assert match is not None
    steps, value = match[2].split(), int(match[1])
    start, *written = thought.split()
    assert int(start) == value
    for step, said in zip(steps, written, strict=True):
        value = apply(value, step[1], int(step[2]))
        assert said in (f"{step}={value}", f"{step[0]}={value}", str(value))
    assert answer == str(value)
    assert TASKS["paced"].is_correct(text, answer)


def test_a_faster_pace_says_less():
    def length(pace: float) -> float:
        return mean(len(write(1, [f"{label}+1" for label in "abcdefgh"], pace, Random(i))) for i in range(50))

    assert length(1.0) < length(0.5) < length(0.0)
