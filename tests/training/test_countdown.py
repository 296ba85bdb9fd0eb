"""Countdown: every thought is a search that reached the target, every step in it is right, and answers verify."""

import re
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.tasks import TASKS, countdown
from demo.tasks.countdown import QUESTION, TRIES, ask, combine, solve
from models.text.tokenizer import HubTokenizer
from training.data.questions import draw

COUNTDOWN = TASKS["countdown"]
TEXT = ask([7, 3, 5], 32)
STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
OPENINGS = re.compile(
    r"(?:Wait, (?:that is too (?:small|big)|not the target)\. )?(?:Hold on, go back to [\d ]+\. )*"
    r"(?:Try|Alternatively,|Another way:) \d|Let me check: "
)
drawn = st.builds(
    lambda difficulty, seed: COUNTDOWN.draw(difficulty, Random(seed)),
    st.sampled_from(COUNTDOWN.difficulties),
    st.integers(0, 10**9),
)


def asked(text: str) -> tuple[list[int], int]:
    match = QUESTION.fullmatch(text)
    assert match is not None
    return [int(number) for number in [*match[1].split(", "), match[2]]], int(match[3])


def test_the_question_lists_the_numbers_in_order():
    assert TEXT == "Use the numbers 3, 5 and 7 to make 32. Use each number once with + - * /."


@given(drawn)
@settings(deadline=None)
def test_every_thought_ends_in_the_right_expression(question):
    text, thought, answer = question
    assert COUNTDOWN.is_correct(text, answer)
    assert thought.endswith(f"Yes, that is the target. So the answer is {answer}.")


@given(drawn)
@settings(deadline=None)
def test_every_step_of_a_thought_is_right(question):
    steps = STEP.findall(question[1])
    assert steps
    assert all(combine(int(left), sign, int(right)) == int(result) for left, sign, right, result in steps)


@given(drawn)
@settings(deadline=None)
def test_a_thought_turns_only_where_a_try_failed(question):
    text, thought, _ = question
    target = asked(text)[1]
    paragraphs = thought.split("\n\n")
    assert all(OPENINGS.match(paragraph) for paragraph in paragraphs)
    for before, after in pairwise(paragraphs):
        closing = before.rpartition("left ")[2].partition(". ")[2]
        results = [int(step[3]) for step in STEP.findall(closing)]
        assert after.startswith("Let me check: ") == (target in results)
        if after.startswith("Wait, that is too small."):
            assert max(results) < target
        elif after.startswith("Wait, that is too big."):
            assert min(results) > target
        elif after.startswith("Wait, "):
            assert min(results) < target < max(results)


@given(drawn)
@settings(deadline=None)
def test_no_try_is_made_twice(question):
    text, thought, _ = question
    left = [
        tuple(sorted(found.split())) for found in re.findall(r"left ([\d ]+) for", thought) if found.count(" ") == 1
    ]
    assert len(left) == len(set(left)) <= TRIES
    assert text


@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(0, 99))
@settings(deadline=None)
def test_three_numbers_are_searched_to_the_end(numbers, seed):
    """What one order of the search finds, every order finds: it never runs out of tries."""
    target = 1 + seed
    found = [solve(numbers, target, Random(order)) is not None for order in range(3)]
    assert len(set(found)) == 1


def test_the_docstring_shows_a_real_search():
    thought, answer = solve([2, 3, 4], 14, Random(0)) or ("", "")
    assert answer == "(4*3)+2"
    lines = [line.strip() for line in str(countdown.__doc__).splitlines()]
    shown = "\n".join(lines).partition("thought: ")[2].partition("\nanswer: ")[0]
    assert thought == shown


@pytest.mark.parametrize("answer", ["(7*5)-3", "7*5-3", " 5*7-3\n", "5*7-3", "(5)*((7))-3"])
def test_any_right_expression_is_an_answer(answer):
    assert COUNTDOWN.is_correct(TEXT, answer)


@pytest.mark.parametrize(
    "answer",
    [
        *("", "32", "7*5", "7*5-3-0", "7*5-3*1", "35-3", "7+5+3", "7*5-3)", "+7*5-3", "7*-5+67", "7//5*3"),
        *("7**5-3", "7/(5-5)-3", "07*5-3", "7*5-3=32", "seven", "len", "f(7)", "7*5-3 # ok" * 9, "(" * 500, "7.0*5-3"),
    ],
)
def test_anything_else_is_not(answer):
    assert not COUNTDOWN.is_correct(TEXT, answer)


def test_a_division_need_not_come_out_even():
    # 8 / (3 - 8/3) = 8 / (1/3) = 24
    assert COUNTDOWN.is_correct(ask([3, 3, 8, 8], 24), "8/(3-8/3)")


def test_a_text_that_is_no_question_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        COUNTDOWN.is_correct("Use the numbers 3 to make 3.", "3")


@pytest.mark.parametrize("difficulty", COUNTDOWN.difficulties)
def test_most_thoughts_have_100_to_600_tokens_and_their_lengths_vary(difficulty):
    tokenizer, rng = HubTokenizer("demo/tokenizer"), Random(0)
    lengths = [len(tokenizer.encode(draw(COUNTDOWN, difficulty, "train", rng).thought)) for _ in range(300)]
    assert sum(100 <= length <= 600 for length in lengths) > 150
    mean = sum(lengths) / 300
    assert sum((length - mean) ** 2 for length in lengths) / 300 > (0.5 * mean) ** 2
