"""The LHRM format, written and read as token ids."""

import pytest

from demo.tasks import TASKS
from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer
from training.algorithms.hgpo import earned_score
from training.algorithms.parts import PolicyParts
from training.data.errors import UserError
from training.data.questions import GeneratedQuestions, TrainingQuestion
from training.data.replies import MODES, ParsedReply, format_of
from training.trl_adapter import check_replies

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
    with pytest.raises(UserError, match=r"these can: .*deepseek_r1, .*lhrm, .*qwen3, "):
        format_of("selfbudgeter", TOKENIZER)
    with pytest.raises(UserError, match="unknown"):
        format_of("nobody", TOKENIZER)


TEMPLATE = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\nOPENING{% endif %}"
)
OPENINGS = {  # as the families' own templates open a reply
    "lhrm": "",
    "qwen3": "{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
    "qwen3.5": "{%- if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}",
    "deepseek_r1": "<think>\n",
    "deepseek_v3.1": "{%- if thinking %}<think>{% else %}</think>{% endif %}",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", OPENINGS)
def test_a_family_is_written_as_its_own_template_writes_it_and_read_back(family, mode):
    tokenizer = HubTokenizer("demo/tokenizer", chat_template=TEMPLATE.replace("OPENING", OPENINGS[family]))
    form, kind = format_of(family, tokenizer), FAMILIES[family]
    messages = [{"role": "user", "content": "2*3?"}]
    reply = form.write(mode, "2 a*3=6", "6")
    whole = [*form.render(messages), *reply]
    served = tokenizer.render(messages, None, kind.modes.get(mode), False, kind.behind.get(mode, ""))
    assert whole[: len(served)] == served, "a reply begins as the server has it begin in that mode"
    read = form.read(reply)
    assert (read.mode, read.thought, read.answer, read.complete) == (mode, "2 a*3=6" * (mode == "think"), "6", True)
    assert not form.read(reply[:-1]).complete
    think, no_think = (form.prefixes[one] for one in MODES)
    assert think[: form.mode_position] == no_think[: form.mode_position]
    assert think[form.mode_position : form.mode_position + 1] != no_think[form.mode_position : form.mode_position + 1]


def test_a_template_that_knows_no_mode_gets_an_empty_thought():
    form = format_of("qwen3", TOKENIZER)
    assert TOKENIZER.decode(form.prefixes["no_think"], skip_special_tokens=False) == "<think>\n\n</think>\n\n"
    assert form.mode_position == 1  # behind <think>: one line end, or two


def test_a_template_that_tells_the_mode_in_the_system_message_is_refused():
    template = "{{ 'think' if enable_thinking else 'direct' }}" + TEMPLATE.replace("OPENING", "<think>\n")
    with pytest.raises(UserError, match="before the reply: no reply can choose it"):
        format_of("qwen3.5", HubTokenizer("demo/tokenizer", chat_template=template))


def test_a_template_that_always_thinks_is_refused():
    with pytest.raises(UserError, match="knows no way not to think"):
        format_of("deepseek_v3.1", TOKENIZER)


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
    (one,) = check_replies(parts(TEXT), [0], [TOKENIZER.encode_control(text)])
    assert earned_score([one], 0.0, lambda name, value: None) == [earned]


def test_a_reward_that_cannot_be_computed_is_an_error():
    with pytest.raises(ValueError, match="not a question"):
        check_replies(parts("another question"), [0], [TOKENIZER.encode_control("<no_think>6</no_think><|im_end|>")])


def parts(text: str) -> PolicyParts[ParsedReply]:
    return PolicyParts(
        source=GeneratedQuestions(TASKS["chain"]),
        questions=[TrainingQuestion(text)],
        render=LHRM.render,
        read=lambda _, ids: LHRM.read(ids),
        reward=earned_score,
    )
