"""The grammar of an answer: text, calls of the offered tools, or both, as a structural tag of xgrammar."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.engines.base import Grammar
from models.tool_calls.formats import PARSED_ONLY, ToolCallFormat
from models.tool_calls.tools import ANY_OBJECT, Tool

MOST_SPACES = 40  # in a row, in the arguments of a call: models that are lost in JSON write them for ever
ID = {"type": "regex", "pattern": "[0-9]+"}


def has_grammar(form: ToolCallFormat) -> bool:
    """Whether the xgrammar of this machine knows how the format writes arguments. It is not imported: that takes
    seconds. Where there is none, an engine elsewhere is trusted to know."""
    if form.style_name in PARSED_ONLY:
        return False
    package = find_spec("xgrammar")
    if form.arguments == "json" or package is None or not package.submodule_search_locations:
        return True
    source = Path(package.submodule_search_locations[0], "structural_tag.py")
    return not source.exists() or f'"{form.arguments}"' in source.read_text(encoding="utf-8")


def answer_grammar(
    form: ToolCallFormat | None, offered: Sequence[Tool], *, must_call: bool, single: bool, text: Grammar | None
) -> Grammar | None:
    """What an answer may be: `text` (None: anything), with or instead of calls of the offered tools.

    A call that must be is all of the answer. Where text is under a grammar, the answer is either that or calls. Raises
    `ValueError` for a text grammar that cannot stand beside calls.
    """
    if form is None or not offered:
        return text
    tags = [_call(form, tool) for tool in offered]
    separate: dict[str, Any] = {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": form.separator,
        "at_least_one": True,
        "stop_after_first": single,
    }
    block = {"type": "tag", "begin": form.open, "content": separate, "end": form.close}
    calls = block if form.one_block and form.open else separate
    if must_call:
        return _structural(calls)
    if text is not None:
        return _structural({"type": "or", "elements": [_text(text), calls]})
    if not form.open:
        return None  # text that looks like a call is one: nothing can be triggered
    trigger = form.open.strip()
    begun = [block] if form.one_block else tags
    triggered_tags = [{**tag, "begin": str(tag["begin"]).lstrip()} for tag in begun]
    triggered = {"type": "triggered_tags", "triggers": [trigger], "tags": triggered_tags, "at_least_one": False}
    return _structural({**triggered, "stop_after_first": single})


def _call(form: ToolCallFormat, tool: Tool) -> dict[str, Any]:
    before, _, ending = form.call.partition("$arguments")
    begin, has_id, behind_id = before.replace("$name", tool.name).partition("$id")
    content = _json(tool.parameters or ANY_OBJECT, form.style_name)
    if has_id:
        content = {"type": "sequence", "elements": [ID, {"type": "const_string", "value": behind_id}, content]}
    if form.one_block:
        return {"type": "tag", "begin": begin, "content": content, "end": ending}
    return {"type": "tag", "begin": form.open + begin, "content": content, "end": ending + form.close}


def _text(grammar: Grammar) -> dict[str, Any]:
    if grammar.kind == "json_object":
        return _json(ANY_OBJECT)
    if grammar.kind == "json" and isinstance(grammar.value, Mapping):
        return _json(grammar.value)
    if grammar.kind == "regex":
        return {"type": "regex", "pattern": grammar.value}
    if grammar.kind == "grammar":
        return {"type": "grammar", "grammar": grammar.value}
    raise ValueError(f"a constraint of kind {grammar.kind} cannot stand beside tools")


def _json(schema: Mapping[str, Any], style: str = "json") -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": dict(schema), "max_whitespace_cnt": MOST_SPACES}
    return form if style == "json" else {**form, "style": style}


def _structural(form: Mapping[str, Any]) -> Grammar:
    return Grammar("structural_tag", json.dumps({"type": "structural_tag", "format": form}))
