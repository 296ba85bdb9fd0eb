"""The LHRM format, written and read."""

import pytest

from training.replies import Reply, choosing_family, read, write
from training.rewards import correctness
from training.tasks import TASKS

LHRM = choosing_family("lhrm")
TEXT = "Start with 2, then a*3. What is the last digit?"


def test_a_thinking_reply_is_thought_then_answer():
    text = write(LHRM, "think", "2 a*3=6", "6")
    assert text == "<think>2 a*3=6</think>6"
    assert read(LHRM, text) == Reply("think", "2 a*3=6", "6", True)


def test_a_direct_reply_holds_the_answer_in_its_tags():
    text = write(LHRM, "no_think", "2 a*3=6", "6")
    assert text == "<no_think>6</no_think>"
    assert read(LHRM, text) == Reply("no_think", "", "6", True)


def test_an_open_tag_is_incomplete():
    assert not read(LHRM, "<think>2 a*3").complete
    assert not read(LHRM, "<no_think>6").complete


def test_text_behind_a_direct_answer_is_incomplete():
    assert not read(LHRM, "<no_think>6</no_think>6").complete


def test_a_reply_without_a_mode_tag_has_no_mode():
    assert read(LHRM, "6") == Reply(None, "", "6", False)


def test_a_family_that_does_not_choose_cannot_be_trained():
    with pytest.raises(ValueError, match="these can: lhrm"):
        choosing_family("qwen3")


@pytest.mark.parametrize(
    ("reply", "ended", "earned"),
    [
        ("<think>2 a*3=6</think>6", True, 1.0),
        ("<no_think>6</no_think>", True, 1.0),
        ("<no_think>7</no_think>", True, 0.0),
        ("<think>2 a*3=6</think>6", False, 0.0),
        ("<think>6", True, 0.0),
        ("6", True, 0.0),
    ],
)
def test_only_a_finished_well_formed_right_reply_earns_the_reward(reply, ended, earned):
    assert correctness(TASKS["chain"], LHRM, TEXT, reply, ended) == earned


def test_a_reward_that_cannot_be_computed_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        correctness(TASKS["chain"], LHRM, "another question", "<no_think>6</no_think>", True)
