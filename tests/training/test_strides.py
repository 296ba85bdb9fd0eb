"""Strides: every thought is right whatever its pace, and a faster pace is shorter."""

import re
from random import Random
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from training.tasks import TASKS
from training.tasks.chain import QUESTION, apply
from training.tasks.strides import LONGEST, stride

STEPS = ["a*3", "b-2", "c-8", "d-7"]


def test_by_hand():
    assert stride(2, STEPS, 0.0, Random(0)) == "2 a*3=6 b-2=4 c-8=6 d-7=9"
    assert stride(2, STEPS, 1.0, Random(1)) in ("2 ab=4 cd=9", "2 abc=6 d-7=9")


@given(st.integers(1, 12), st.integers(0, 10**9))
def test_every_stride_is_right_and_no_step_is_left_out(difficulty, seed):
    text, thought, answer = TASKS["strides"].draw(difficulty, Random(seed))
    match = QUESTION.fullmatch(text)
    assert match is not None
    steps, value, done = match[2].split(), int(match[1]), 0
    start, *strides = thought.split()
    assert int(start) == value
    for said in strides:
        named, _, result = said.partition("=")
        labels = re.sub(r"[-+*]\d", "", named)
        taken = steps[done : done + len(labels)]
        assert 1 <= len(labels) <= LONGEST
        assert labels == "".join(step[0] for step in taken)
        for step in taken:
            value = apply(value, step[1], int(step[2]))
        assert int(result) == value
        done += len(labels)
    assert done == len(steps)
    assert answer == str(value)
    assert TASKS["strides"].is_correct(text, answer)


def test_a_faster_pace_says_less():
    def length(pace: float) -> float:
        return mean(len(stride(1, [f"{label}+1" for label in "abcdefgh"], pace, Random(i))) for i in range(50))

    assert length(1.0) < length(0.5) < length(0.0)
