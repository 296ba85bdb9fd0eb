"""What a chat template writes before the reply begins."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from models.engines.base import InvalidRequest, Tokenizer
from models.formats.families import Family
from models.tool_calls.hermes import Tool, ToolFormat

SystemPlace = Literal["anywhere", "first", "nowhere"]
"""Where a chat template takes system turns."""

PROBE = "What is 2 + 3?"
TOOL = Tool("look_up")


def opens_thinking(family: Family, tokenizer: Tokenizer) -> bool:
    """Whether the generation prompt of the tokenizer's template ends inside the family's thinking tag.

    Parser and template must agree on this: if they do not, thinking is served as answer or the answer as thinking.
    """
    if family.thinking is None:
        return False
    opening, closing = family.thinking
    prompt = tokenizer.decode(tokenizer.render([{"role": "user", "content": PROBE}]), skip_special_tokens=False)
    behind_the_question = prompt.rpartition(PROBE)[2]
    return behind_the_question.rfind(opening) > behind_the_question.rfind(closing)


def writes_calls(tokenizer: Tokenizer, written: ToolFormat) -> bool:
    """Whether the tokenizer's template shows the tools that it is given, and writes calls as `written`: the model has
    learned to write them as its template does, and calls of another form would be read as text."""
    question: dict[str, Any] = {"role": "user", "content": PROBE}
    call = {"id": "call_0", "type": "function", "function": {"name": TOOL.name, "arguments": {}}}
    turns = [question, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        asked, called = (tokenizer.render(messages, [TOOL.as_template_input()]) for messages in ([question], turns))
    except InvalidRequest:  # a template that knows no calls may refuse them
        return False
    said = tokenizer.decode(called, skip_special_tokens=False).rpartition(written.opening)[2]
    head = written.head.match(said)
    return TOOL.name in tokenizer.decode(asked) and head is not None and head[1] == TOOL.name


def system_place(tokenizer: Tokenizer) -> SystemPlace:
    """Where the tokenizer's template takes system turns: one that it refuses or leaves out has no place there."""
    rules = ("Keep to the first-probe-7f3.", "And to the second-probe-9a1.", "And to the third-probe-4c8.")
    first, second, late = ({"role": "system", "content": text} for text in rules)
    user, assistant = {"role": "user", "content": PROBE}, {"role": "assistant", "content": "5"}
    if _shown(tokenizer, [first, second, user, assistant, late, user], rules):
        return "anywhere"
    return "first" if _shown(tokenizer, [first, user], rules[:1]) else "nowhere"


def _shown(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], texts: Sequence[str]) -> bool:
    try:
        prompt = tokenizer.decode(tokenizer.render(turns))
    except InvalidRequest:
        return False
    return all(text in prompt for text in texts)
