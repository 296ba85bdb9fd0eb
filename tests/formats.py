"""Formats and templates that many tests need."""

from functools import cache
from pathlib import Path

from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer

HERMES = FAMILIES["hermes"].tools
assert HERMES is not None

FOLDER = Path(__file__).parents[1] / "demo/tokenizer"
SWITCHES = (FOLDER / "chat_template.jinja").read_text("utf-8")
"""The demo's template. It has Qwen3's switch."""

CLOSED = (FOLDER.parent / "hybrid/chat_template.jinja").read_text("utf-8")
"""The same without the switch."""

HEADER = "assistant\\n' }}{% endif %}"
assert CLOSED.endswith(HEADER)
OPENS = CLOSED.removesuffix(HEADER) + "assistant\\n<think>\\n' }}{% endif %}"
"""A template that opens the thinking itself."""


@cache
def tokenizer_of(family: str) -> HubTokenizer:
    """The demo's tokenizer with a template that fits the family."""
    return HubTokenizer(FOLDER, chat_template=OPENS if family == "deepseek_r1" else None)
