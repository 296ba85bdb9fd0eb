"""The LHRM format, written and read as token ids."""

import pytest

from models.text.tokenizer import HubTokenizer
from training.replies import Reply, choosing_family, format_of
from training.rewards import correctness
from training.tasks import TASKS

TOKENIZER = HubTokenizer("demo/tokenizer")
LHRM = format_of("lhrm", TOKENIZER)
TEXT = "Start with 2, then a*3. What is the last digit?"


def read(text: str) -> Reply:
    return LHRM.read(TOKENIZER.encode_control(text))


def test_a_thinking_reply_is_thought_then_answer():
    ids = LHRM.write("think", "2 a*3=6", "6")
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<think>2 a*3=6</think>6<|im_end|>"
    assert LHRM.read(ids) == Reply("think", "2 a*3=6", "6", True)


def test_a_direct_reply_holds_the_answer_in_its_tags():
    ids = LHRM.write("no_think", "2 a*3=6", "6")
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<no_think>6</no_think><|im_end|>"
    assert LHRM.read(ids) == Reply("no_think", "", "6", True)


def test_a_tag_spelled_in_a_thought_is_text():
    assert LHRM.read(LHRM.write("think", "</think>7", "6")) == Reply("think", "</think>7", "6", True)


@pytest.mark.parametrize(
    "text",
    [
        "<think>2 a*3<|im_end|>",
        "<no_think>6<|im_end|>",
        "<no_think>6</no_think>6<|im_end|>",
        "<think>2</think></think>6<|im_end|>",
        "<think>2 a*3=6</think>6",
    ],
)
def test_a_reply_that_breaks_the_format_or_does_not_end_is_incomplete(text):
    assert not read(text).complete


def test_a_reply_without_a_mode_tag_has_no_mode():
    assert read("6<|im_end|>") == Reply(None, "", "6", False)
    assert read("") == Reply(None, "", "", False)


def test_a_family_that_does_not_choose_cannot_be_trained():
    with pytest.raises(ValueError, match="these can: lhrm"):
        choosing_family("qwen3")


@pytest.mark.parametrize(
    ("text", "earned"),
    [
        ("<think>2 a*3=6</think>6<|im_end|>", 1.0),
        ("<no_think>6</no_think><|im_end|>", 1.0),
        ("<no_think>7</no_think><|im_end|>", 0.0),
        ("<think>2 a*3=6</think>6", 0.0),
        ("<think>6<|im_end|>", 0.0),
        ("6<|im_end|>", 0.0),
    ],
)
def test_only_a_finished_well_formed_right_reply_earns_the_reward(text, earned):
    assert correctness(TASKS["chain"], TEXT, read(text)) == earned


def test_a_reward_that_cannot_be_computed_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        correctness(TASKS["chain"], "another question", read("<no_think>6</no_think><|im_end|>"))
