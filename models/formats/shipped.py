"""Families read from the response template that a model may ship beside its chat template.

It says how thinking, answer and calls in JSON are written, and nothing of the prompt. So each switch that templates are
known to have is a family of its own, and the proof at start takes one. What cannot be read is left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from models.formats.reasoning import ReasoningFormat, read_formats

FIELDS = ("reasoning_content", "reasoning", "thinking")
SWITCHES = ("enable_thinking", "thinking")
PLAINER = (
    (r"\(\?P<(\w+)>(?:\\.|\[[^\]]*\]|[^()\\])*\)", r"$\1"),  # a named group is its name
    (r"\(\?[=!](?:\\.|\[[^\]]*\]|[^()\\])*\)|\|\$$|\\s[*?]|\\n\?", ""),  # nothing of the text
    (r"\\n", "\n"),
    (r"\\s\+", " "),
)
UNREADABLE = re.compile(r"(?<!\\)[][()*+?|{}^.]")


def shipped(template: Mapping[str, Any] | None) -> Mapping[str, ReasoningFormat]:
    """What a response template says, once for each switch."""
    parts: Mapping[str, Any] = (template or {}).get("fields") or {}
    field = next((name for name in FIELDS if name in parts), None)
    if field is None:
        return {}
    opening, closing = _text(parts[field], "open"), _text(parts[field], "close")
    if not closing:
        return {}
    table: dict[str, Any] = {
        "thinking": [opening or closing.replace("/", "", 1), closing],
        "history": {"thinking": field},
    }
    answer = parts.get("content", {})
    if begins := _text(answer, "open"):
        between = str(template.get("start_anchor", "")) if template else ""
        ends = [[begins, _text(answer, "close")], [begins, closing]]
        table |= {"answer": ends, "between": [between], "closing": closing + between + begins}
    if calls := _calls(parts.get("tool_calls", {})):
        table["tools"] = calls
    switches: Sequence[Mapping[str, Any]] = [
        *({"think": {name: True}, "no_think": {name: False}} for name in SWITCHES),
        {"think": {}},
    ]
    names = (f"response_template, {switch}" for switch in (*SWITCHES, "always"))
    return read_formats({name: {**table, "modes": modes} for name, modes in zip(names, switches, strict=True)})


def _calls(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """How calls are written, where their arguments are JSON or Gemma's."""
    begins, close = _text(part, "open"), _text(part, "close")
    if part.get("content") != "json" or not begins:
        return None
    styled = part.get("content_args", {})
    opening, name, rest = begins.partition("$name")
    if not name:
        return {"open": opening, "call": '{"name": "$name", "arguments": $arguments}', "close": close}
    if styled.get("unquoted_keys"):
        return {"open": opening, "call": f"$name{rest}{{$arguments}}", "close": close, "arguments": "gemma"}
    return {"open": opening, "call": f"$name{rest}$arguments", "close": close}


def _text(part: Mapping[str, Any], which: str) -> str:
    """The text that opens or closes a part; empty where it is more than a text."""
    if literal := part.get(which):
        return str(literal if isinstance(literal, str) else literal[0])
    pattern = str(part.get(f"{which}_pattern", ""))
    for found, plainer in PLAINER:
        pattern = re.sub(found, plainer, pattern)
    return "" if UNREADABLE.search(pattern) else re.sub(r"\\(.)", r"\1", pattern)
