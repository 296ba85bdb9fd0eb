"""Formats and templates that many tests need."""

from functools import cache
from pathlib import Path

from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer

HERMES = FAMILIES["hermes"].tools
assert HERMES is not None

FOLDER = Path(__file__).parents[1] / "demo/tokenizer"
TEMPLATE = (FOLDER / "chat_template.jinja").read_text("utf-8")
HEADER = "assistant\\n' }}{% endif %}"
assert TEMPLATE.endswith(HEADER)


def ending(text: str) -> str:
    """The demo's template with this behind the header of a reply."""
    return TEMPLATE.removesuffix(HEADER) + f"assistant\\n' }}}}{text}{{% endif %}}"


OPENS = ending("{{- '<think>\\n' }}")
"""A template that opens the thinking itself."""

SWITCHES = ending("{% if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}")
"""A template that has Qwen3's switch."""

OF_FAMILY = {"qwen3": SWITCHES, "deepseek_r1": OPENS}
"""The template that a family needs, where it is not the demo's own."""


@cache
def tokenizer_of(family: str) -> HubTokenizer:
    """The demo's tokenizer with a template that fits the family."""
    return HubTokenizer(FOLDER, chat_template=OF_FAMILY.get(family))
