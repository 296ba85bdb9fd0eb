"""Tool calls in the text of an answer: how a kind of model writes them, the grammar for that, and a parser.

A format is data. Both ends come from it: the grammar lets a model write nothing else where it calls a tool, and the
parser reads what it wrote while it arrives. The parser needs no grammar: it also reads what a model without one writes
with other spaces or another order of keys, and what it cannot read stays text. Nothing here imports vLLM.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import orjson

from models.engines.base import Grammar

MOST_SPACES = 40  # in a row, in the arguments of a call: models that are lost in JSON write them for ever
MOST_LEVELS = 100  # of the arguments of a call: they are put into deeper objects, and templates walk through them
ANY_OBJECT: Mapping[str, Any] = MappingProxyType({"type": "object"})


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema (None: any object)."""

    name: str
    parameters: Mapping[str, Any] | None = None
    description: str | None = None

    def as_template_input(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters or ANY_OBJECT)}}


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How calls are written: `opening`, `before`, the name, `between`, the arguments as a JSON object, `after`,
    `closing`. `head` matches what stands between the opening and the arguments, as loosely as it may be written, with
    the name as its first group. `separator` stands between two calls."""

    opening: str
    before: str
    between: str
    after: str
    closing: str
    separator: str
    head: re.Pattern[str]


HERMES = ToolFormat(
    opening="<tool_call>",
    before='\n{"name": "',
    between='", "arguments": ',
    after="}\n",
    closing="</tool_call>",
    separator="\n",
    head=re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"arguments"\s*:\s*(?=\{)'),
)

Choice = Literal["auto", "required", "none"]


def answer_grammar(
    tools: ToolFormat | None, offered: Sequence[Tool], *, must_call: bool, single: bool, text: Grammar | None
) -> Grammar | None:
    """What an answer may be: `text` (None: anything), with or instead of calls of the offered tools.

    A call that must be is all of the answer. Where text is under a grammar, the answer is either that or calls. Raises
    `ValueError` for a text grammar that cannot stand beside calls.
    """
    if tools is None or not offered:
        return text
    calls = {
        "type": "tags_with_separator",
        "tags": [_call(tools, tool) for tool in offered],
        "separator": tools.separator,
        "at_least_one": True,
        "stop_after_first": single,
    }
    if must_call:
        return _structural(calls)
    if text is not None:
        return _structural({"type": "or", "elements": [_text(text), calls]})
    anywhere = {"type": "triggered_tags", "triggers": [tools.opening], "tags": calls["tags"]}
    return _structural({**anywhere, "at_least_one": False, "stop_after_first": single})


def _call(tools: ToolFormat, tool: Tool) -> dict[str, Any]:
    return {
        "type": "tag",
        "begin": f"{tools.opening}{tools.before}{tool.name}{tools.between}",
        "content": _json(tool.parameters or ANY_OBJECT),
        "end": f"{tools.after}{tools.closing}",
    }


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


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": dict(schema), "max_whitespace_cnt": MOST_SPACES}


def _structural(form: Mapping[str, Any]) -> Grammar:
    return Grammar("structural_tag", json.dumps({"type": "structural_tag", "format": form}))


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of a call: `number` counts the answer's calls from 0, `name` comes with the first piece, `arguments` is
    the next of its JSON text, as the model wrote it."""

    number: int
    name: str | None
    arguments: str


State = Literal["text", "head", "arguments", "tail"]


class CallParser:
    """Cuts one answer into text and calls, with the same pieces however the text arrives.

    Held back are only what may still become an opening, the head of a call until its name is known, and white space
    that may turn out to stand before a call: it goes with the call. `closed` counts the calls that are complete.
    """

    __slots__ = ("_depth", "_escaped", "_format", "_held", "_in_string", "_number", "_opening", "_state", "closed")

    def __init__(self, tools: ToolFormat) -> None:
        self._format = tools
        self._state: State = "text"
        self._held = ""
        self._opening = ""  # as it stood in the text, the space before it included
        self._number = -1
        self._depth = 0
        self._in_string = self._escaped = False
        self.closed = 0

    @property
    def inside(self) -> bool:
        """Whether the answer stands within a call."""
        return self._state != "text"

    def feed(self, text: str) -> list[str | Written]:
        """What this text completes, in order."""
        self._held += text
        said: list[str | Written] = []
        while self._step(said):
            pass
        return said

    def flush(self) -> list[str | Written]:
        """The answer has ended: what was held back is text after all, but for the end of a call."""
        held, self._held = self._held, ""
        if self._state == "head":
            held = self._opening + held
        elif self._state != "text":
            held = ""
        self._state = "text"
        return [held] if held else []

    def _step(self, said: list[str | Written]) -> bool:
        """One move; False where more text is needed."""
        match self._state:
            case "text":
                return self._text(said)
            case "head":
                return self._head(said)
            case "arguments":
                return self._arguments(said)
            case "tail":
                return self._tail()

    def _text(self, said: list[str | Written]) -> bool:
        opening = self._format.opening
        before, found, behind = self._held.partition(opening)
        if found:
            text = before.rstrip()
            if text:
                said.append(text)
            self._opening = before[len(text) :] + opening
            self._held, self._state = behind, "head"
            return True
        ready = len(self._held) - _overlap(self._held, opening)
        ready = len(self._held[:ready].rstrip())
        if ready:
            said.append(self._held[:ready])
            self._held = self._held[ready:]
        return False

    def _head(self, said: list[str | Written]) -> bool:
        matched = self._format.head.match(self._held)
        if matched:
            self._number += 1
            said.append(Written(self._number, matched[1], ""))
            self._held, self._state = self._held[matched.end() :], "arguments"
            self._depth, self._in_string, self._escaped = 0, False, False
            return True
        body, found, behind = self._held.partition(self._format.closing)
        if not found:
            return False
        self._held, self._state = behind, "text"
        name, arguments = _loosely(body)
        if name is None:
            said.append(self._opening + body + self._format.closing)
            return True
        self._number += 1
        self.closed += 1
        said.append(Written(self._number, name, arguments))
        return True

    def _arguments(self, said: list[str | Written]) -> bool:
        """Up to the brace that closes the arguments, or to what cannot be JSON."""
        end = 0
        for end, character in enumerate(self._held, 1):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == self._format.closing[0]:
                end -= 1
                self._state = "tail"
                break
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                if self._depth == 0:
                    self._state = "tail"
                    break
            elif character == '"':
                self._in_string = True
        if end:
            said.append(Written(self._number, None, self._held[:end]))
        self._held = self._held[end:]
        return self._state == "tail"

    def _tail(self) -> bool:
        _, found, behind = self._held.partition(self._format.closing)
        if not found:
            return False
        self._held, self._state = behind, "text"
        self.closed += 1
        return True


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a client or a model wrote, or None: it is no JSON, no object, or nests too deep. It can always be
    written again: integers beyond 64 bits are floats, as most readers of JSON have them."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and _nests(value, MOST_LEVELS) else None


def _nests(value: Any, levels: int) -> bool:
    """Whether a JSON value has at most so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_nests(each, levels - 1) for each in inner)


def _loosely(body: str) -> tuple[str | None, str]:
    """Name and arguments of a call that is written in some other order; no name where it is none."""
    call = json_object(body)
    if call is None or not isinstance(call.get("name"), str):
        return None, ""
    arguments = call.get("arguments", call.get("parameters", {}))
    return call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`, and not all of it."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)
