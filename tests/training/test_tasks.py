"""Tasks: answers that verify, a knob that counts, and a split that holds."""

from random import Random

import pytest

from demo.tasks import TASKS
from demo.tasks.chain import solve
from training.data.questions import draw, draw_many, split_of

CHAIN = TASKS["chain"]
TEXT = "Start with 2, then a*3 b-2 c-8 d-7. What is the last digit?"


def test_a_chain_is_solved_digit_by_digit():
    # 2*3 = 6, 6-2 = 4, 4-8 = -4 -> 6, 6-7 = -1 -> 9
    assert solve(2, ["a*3", "b-2", "c-8", "d-7"]) == ("2 a*3=6 b-2=4 c-8=6 d-7=9", "9")


def test_an_answer_is_verified_from_the_question_alone():
    assert CHAIN.is_correct(TEXT, "9")
    assert CHAIN.is_correct(TEXT, " 9\n")
    assert not CHAIN.is_correct(TEXT, "8")
    assert not CHAIN.is_correct(TEXT, "")


def test_a_text_that_is_no_question_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        CHAIN.is_correct("What is 2 + 2?", "4")


@pytest.mark.parametrize("difficulty", [1, 4, 8])
def test_the_knob_counts_the_steps(difficulty):
    question = draw(CHAIN, difficulty, "train", Random(0))
    assert question.thought.count("=") == difficulty
    assert CHAIN.is_correct(question.text, question.answer)


def test_the_same_seed_draws_the_same_questions():
    assert draw_many(CHAIN, [1, 5], 9, "train", Random(3)) == draw_many(CHAIN, [1, 5], 9, "train", Random(3))


def test_no_question_is_both_train_and_test():
    train = {question.text for question in draw_many(CHAIN, [1, 2], 500, "train", Random(0))}
    test = {question.text for question in draw_many(CHAIN, [1, 2], 500, "test", Random(0))}
    assert train and test and not train & test


def test_about_an_eighth_of_the_questions_is_test():
    texts = [CHAIN.draw(8, Random(seed))[0] for seed in range(2000)]
    assert 0.1 < sum(split_of(text) == "test" for text in texts) / 2000 < 0.15


def test_a_difficulty_that_the_task_lacks_is_an_error():
    with pytest.raises(ValueError, match="outside"):
        draw(CHAIN, 27, "train", Random(0))
