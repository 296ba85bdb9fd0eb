"""The LHRM format, written and read as token ids."""

import pytest

from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from training.algorithms.parts import PolicyParts, earned_score
from training.data.errors import UserError
from training.data.questions import GeneratedQuestions, Question
from training.data.replies import MODES, ParsedReply, format_of

TOKENIZER = HubTokenizer("demo/tokenizer")
LHRM = format_of("lhrm", TOKENIZER)
TEXT = "Start with 2, then a*3. What is the last digit?"


def read(text: str) -> ParsedReply:
    return LHRM.read(TOKENIZER.encode_control(text))


def test_a_thinking_reply_is_thought_then_answer():
    ids = LHRM.write("think", "2 a*3=6", "6")
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<think>2 a*3=6</think>6<|im_end|>"
    assert LHRM.read(ids) == ParsedReply("think", "2 a*3=6", "6", True, len(ids))


def test_a_direct_reply_holds_the_answer_in_its_tags():
    ids = LHRM.write("no_think", "2 a*3=6", "6")
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<no_think>6</no_think><|im_end|>"
    assert LHRM.read(ids) == ParsedReply("no_think", "", "6", True, len(ids))


def test_a_tag_spelled_in_a_thought_is_text():
    ids = LHRM.write("think", "</think>7", "6")
    assert LHRM.read(ids) == ParsedReply("think", "</think>7", "6", True, len(ids))


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
    assert read("6<|im_end|>") == ParsedReply(None, "", "6", False, 2)
    assert read("") == ParsedReply(None, "", "", False, 0)


def test_a_family_without_both_modes_cannot_be_trained_to_choose():
    with pytest.raises(UserError, match="these can: deepseek_r1, lhrm, qwen3, qwq"):
        format_of("selfbudgeter", TOKENIZER)
    with pytest.raises(UserError, match="unknown"):
        format_of("nobody", TOKENIZER)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["qwen3", "deepseek_r1"])
def test_a_prefix_family_is_written_as_its_template_writes_it_and_read_back(family, mode):
    form = format_of(family, TOKENIZER)
    ids = form.write(mode, "2 a*3=6", "6")
    text = TOKENIZER.decode(ids, skip_special_tokens=False)
    opening = "<think>\n" if family == "qwen3" else ""
    thinks = f"{opening}2 a*3=6\n</think>\n\n6<|im_end|>"
    direct = f"{opening or chr(10)}\n</think>\n\n6<|im_end|>" if opening else "\n</think>\n\n6<|im_end|>"
    assert text == (thinks if mode == "think" else direct)
    read = form.read(ids)
    assert (read.mode, read.thought, read.answer, read.complete) == (mode, "2 a*3=6" * (mode == "think"), "6", True)
    assert not form.read(ids[:-1]).complete


def test_the_mode_is_decided_where_replies_in_the_two_modes_differ():
    assert LHRM.mode_position == 0
    qwen = format_of("qwen3", TOKENIZER)
    assert qwen.mode_position == 1  # behind <think>: one line end, or two
    assert qwen.prefixes["think"][0] == qwen.prefixes["no_think"][0]
    assert format_of("deepseek_r1", TOKENIZER).mode_position == 0


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
    (one,) = parts(TEXT).checked([0], [TOKENIZER.encode_control(text)])
    assert earned_score([one], 0.0, lambda name, value: None) == [earned]


def test_a_reward_that_cannot_be_computed_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        parts("another question").checked([0], [TOKENIZER.encode_control("<no_think>6</no_think><|im_end|>")])


def parts(text: str) -> PolicyParts[ParsedReply]:
    return PolicyParts(
        source=GeneratedQuestions(TASKS["chain"]),
        questions=[Question(text)],
        render=LHRM.render,
        read=lambda _, ids: LHRM.read(ids),
        reward=earned_score,
    )
