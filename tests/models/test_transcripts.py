"""Prompt and reply out of text with a template's marks in it."""

import pytest
from transformers import AutoTokenizer

from models.formats import FAMILIES
from models.text.template_marks import Marks, marks_of
from models.text.tokenizer import HubTokenizer

ASKED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def marks() -> Marks:
    return marks_of(HubTokenizer("demo/tokenizer"), FAMILIES["lhrm"])


def test_marks_are_read_off_the_template(marks):
    assert marks.opening == "<|im_start|>user\n"
    assert marks.to_reply == "<|im_end|>\n<|im_start|>assistant\n"
    assert marks.to_user == "<|im_end|>\n<|im_start|>user\n"
    assert marks.to_new_reply == marks.to_reply
    assert marks.ends == ("<|im_end|>",)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ASKED + "Because.", ("Why?", "Because.")),
        (ASKED + "<think>hm</think>Because.<|im_end|><|endoftext|>", ("Why?", "Because.")),
        (ASKED + "<no_think>Because.</no_think>", ("Why?", "Because.")),
        (ASKED + "<think>maybe \\boxed{4}, let me", ("Why?", "")),
        (ASKED + "<think>hm</think>Use `<think>` so.", ("Why?", "Use `<think>` so.")),
        (
            ASKED + "So.<|im_end|>\n<|im_start|>user\nReally?<|im_end|>\n<|im_start|>assistant\nYes.",
            ("Why?\n\nAssistant: So.\n\nUser: Really?", "Yes."),
        ),
        ("<|im_start|>system\nBe kind.<|im_end|>\n" + ASKED + "Ok.", ("system\nBe kind.\n\nUser: Why?", "Ok.")),
        (ASKED, ("Why?", "")),
        (ASKED.replace("Why?", "a <| b |> c, x<|y|>z?") + "d <|e|> f", ("a <| b |> c, x<|y|>z?", "d <|e|> f")),
        ("<|endoftext|>" * 5 + ASKED + "Because.", ("Why?", "Because.")),
    ],
)
def test_the_last_mark_tells_where_the_reply_begins(marks, query, expected):
    assert marks.split(query) == expected


def test_a_known_prompt_tells_it_exactly(marks):
    spoken = "a<|im_end|>\n<|im_start|>assistant\nb"
    assert marks.split(ASKED + spoken, ASKED) == ("Why?", "a")
    assert marks.split("<|endoftext|>Q: why? A: so", "Q: why? A:") == ("Q: why? A:", "so")


def test_text_without_marks_is_not_guessed_at(marks):
    assert marks.split("What is it? It is this.") is None


def test_a_template_that_opens_thinking_begins_replies_before_it():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    opens = marks_of(HubTokenizer("demo/tokenizer", chat_template=template), FAMILIES["deepseek_r1"])
    assert opens.to_reply == "<|im_end|>\n<|im_start|>assistant\n"
    assert opens.split(ASKED + "<think>\nhm</think>\n\nSo.") == ("Why?", "So.")
    opened = ASKED + "<think>\n"
    assert opens.prompt_text(opened) == opens.prompt_text(ASKED) == "Why?"
    assert opens.split(opened + "hm</think>\n\nSo.<|im_end|>", opened) == ("Why?", "So.")


USER, REPLY, BOS, EOS = "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
FULL_WIDTH = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    + USER
    + "{{ m.content }}{% else %}"
    + REPLY
    + "{{ m.content.split('</think>')[-1] }}"
    + EOS
    + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + REPLY + "<think>\n{% endif %}"
)


@pytest.fixture(scope="module")
def full_width(tmp_path_factory) -> Marks:
    """A template as DeepSeek-R1's: full-width marks, a token that begins sequences, thinking opened."""
    hub = AutoTokenizer.from_pretrained("demo/tokenizer")
    hub.add_special_tokens({"bos_token": BOS, "eos_token": EOS, "extra_special_tokens": [USER, REPLY]})
    hub.chat_template = FULL_WIDTH
    path = tmp_path_factory.mktemp("full-width")
    hub.save_pretrained(path)
    return marks_of(HubTokenizer(path), FAMILIES["deepseek_r1"])


@pytest.mark.parametrize("bos", [BOS, ""], ids=["with", "without"])
@pytest.mark.parametrize("ending", ["", EOS, EOS + EOS, EOS + "<|endoftext|>"])
def test_marks_of_any_script_are_taken_off_with_and_without_what_begins_a_sequence(full_width, bos, ending):
    asked = f"{bos}{USER}Why?{REPLY}"
    assert full_width.prompt_text(asked + "<think>\n") == full_width.prompt_text(asked) == "Why?"
    assert full_width.split(f"{asked}Because.{ending}") == ("Why?", "Because.")
    prompt = f"{BOS}{USER}Why?{REPLY}<think>\n"
    assert full_width.split(f"{asked}<think>\nhm</think>Because.{ending}", prompt) == ("Why?", "Because.")
    earlier = f"{bos}{USER}Why?{REPLY}So.{EOS}{USER}Really?{REPLY}"
    assert full_width.split(earlier + "Yes.") == ("Why?\n\nAssistant: So.\n\nUser: Really?", "Yes.")
