"""Checked thoughts: they lead to the right answer, end where patience does, and a check finds a slip."""

from random import Random
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from demo.tasks import TASKS
from demo.tasks.chain import QUESTION, apply, solve
from demo.tasks.checked import write

STEPS = ["a*3", "b-2", "c-8", "d-7"]
RUN = "2 a*3=6 b-2=4 c-8=6 d-7=9."


def test_by_hand():
    assert write(2, STEPS, 0, Random(0), slip=0) == (RUN, "9")
    assert write(2, STEPS, 6, Random(0), slip=0) == (f"{RUN}\nCheck: {RUN}\nCheck: 2 a*3=6 b-2=4", "9")


@given(st.integers(1, 12), st.integers(0, 10**9))
def test_every_thought_leads_to_the_answer(difficulty, seed):
    text, thought, answer = TASKS["checked"].draw(difficulty, Random(seed))
    match = QUESTION.fullmatch(text)
    assert match is not None
    steps = match[2].split()
    runs = [run.split() for run in thought.split("\nCheck: ")]
    assert all(run[0] == match[1] and len(run) <= difficulty + 1 for run in runs)
    assert all(said.startswith(f"{step}=") for run in runs for step, said in zip(steps, run[1:], strict=False))
    assert all((len(run) == difficulty + 1) == run[-1].endswith(".") for run in runs)
    whole = [run for run in runs if len(run) == difficulty + 1]
    assert whole[-1][-1].endswith(f"={answer}.")
    assert answer == solve(int(match[1]), steps)[1]
    assert TASKS["checked"].is_correct(text, answer)


@given(st.integers(1, 8), st.integers(0, 10**9))
def test_a_check_that_differs_goes_on_to_its_end_and_is_checked_whole(patience, seed):
    thought, answer = write(2, STEPS, patience, Random(seed), slip=0.2)
    runs = [run.split() for run in thought.split("\nCheck: ")]
    standard = runs[0]
    for number, run in enumerate(runs[1:], 1):
        if run != standard[: len(run)]:
            assert len(run) == len(STEPS) + 1 and len(runs) > number + 1 and len(runs[number + 1]) == len(run)
            standard = run
    assert answer == standard[-1][-2]


def test_a_slip_is_carried_on():
    for seed in range(100):
        said = write(2, STEPS, 0, Random(seed), slip=0.3)[0].split()
        values = [int(one.rstrip(".")[-1]) for one in said]
        slips = sum(apply(a, s[1], int(s[2])) != b for a, b, s in zip(values[:-1], values[1:], STEPS, strict=True))
        if slips == 1:
            return
    raise AssertionError("no thought with one slip")


def test_checks_are_worth_their_tokens():
    def right(patience: int) -> float:
        return mean(write(2, STEPS, patience, Random(i), slip=0.05)[1] == "9" for i in range(2000))

    assert right(0) < right(4) - 0.03
