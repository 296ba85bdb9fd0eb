"""Prompt and reply out of text with a template's marks in it."""

import pytest

from models.families import FAMILIES
from models.tokenizer import HubTokenizer
from models.transcripts import Marks, marks_of

ASKED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def marks() -> Marks:
    return marks_of(HubTokenizer("demo/tokenizer"), FAMILIES["lhrm"])


def test_marks_are_read_off_the_template(marks):
    assert marks.opening == "<|im_start|>user\n"
    assert marks.to_reply == "<|im_end|>\n<|im_start|>assistant\n"
    assert marks.to_user == "<|im_end|>\n<|im_start|>user\n"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ASKED + "Because.", ("Why?", "Because.")),
        (ASKED + "<think>hm</think>Because.<|im_end|><|endoftext|>", ("Why?", "Because.")),
        (ASKED + "<no_think>Because.</no_think>", ("Why?", "Because.")),
        (ASKED + "<think>never closed", ("Why?", "<think>never closed")),
        (
            ASKED + "So.<|im_end|>\n<|im_start|>user\nReally?<|im_end|>\n<|im_start|>assistant\nYes.",
            ("Why?\n\nAssistant: So.\n\nUser: Really?", "Yes."),
        ),
        ("<|im_start|>system\nBe kind.<|im_end|>\n" + ASKED + "Ok.", ("system\nBe kind.\n\nUser: Why?", "Ok.")),
        (ASKED, ("Why?", "")),
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
