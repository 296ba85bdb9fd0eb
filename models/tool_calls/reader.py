"""Reads the tool calls of a reply while it arrives.

The reader is pure: it looks at the marked text that is held and says what its beginning is. Within a call only what may
follow there counts; everything else, tags included, is the text of an argument. What cannot be read stays text.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.tool_calls.patterns import CallPatterns
from models.tool_calls.tools import Tool, json_object
from models.tool_calls.values import elements_text, from_gemma, from_python, json_text, string_typed

LONGEST_HEAD = 400  # characters of a name with what stands around it
TAIL = 64  # characters behind the arguments in which their end is looked for
MARKS = frozenset(map(chr, range(0xFDD1, 0xFDF0)))


@dataclass(frozen=True, slots=True)
class Move:
    """What the first `count` characters are: the head of a call where `name` is known, else a piece of its arguments,
    or layout. `over`: the block of calls has ended. `refused`: they are text after all."""

    count: int
    text: str = ""
    name: str | None = None
    id: str | None = None
    over: bool = False
    refused: bool = False


State = Literal["head", "whole", "json", "items", "value", "tail", "gap"]


class CallReader:
    """Reads one block of calls. `closed` counts those that are complete. `named`: a call has begun, so what is held is
    no text any more."""

    __slots__ = (
        "_any",
        "_arguments_at",
        "_depth",
        "_end",
        "_escaped",
        "_first",
        "_head",
        "_id",
        "_in_string",
        "_name",
        "_patterns",
        "_scanned",
        "_schema",
        "_spellings",
        "_state",
        "_tools",
        "_value",
        "closed",
        "named",
    )

    def __init__(self, patterns: CallPatterns, tools: Mapping[str, Tool], opening: str, at: int) -> None:
        """`at` is where the head begins, behind `opening`, in what is held."""
        self._patterns = patterns
        self._tools = tools
        self._spellings = patterns.openings[opening]
        self._first = True
        self._expect_head(at)
        self.closed = 0

    def translate(self, patterns: CallPatterns) -> None:
        """Another vocabulary goes on."""
        self._patterns = patterns

    def step(self, held: str) -> Move | None:
        """One move; None where more text is needed."""
        steps = {
            "head": self._read_head,
            "whole": self._read_whole,
            "json": self._read_json,
            "items": self._read_items,
            "value": self._read_value,
            "tail": self._read_tail,
            "gap": self._read_gap,
        }
        return steps[self._state](held) if held else None

    def cut(self, held: str) -> str:
        """What of the arguments is held when the reply ends within them."""
        return _escaped(self._patterns.unmark(held)) if self._state == "value" and self._value is None else ""

    # The head

    def _expect_head(self, at: int) -> None:
        self._state: State = "head"
        self.named = False
        self._head = self._scanned = at
        self._depth = 0
        self._in_string = self._escaped = self._any = False
        self._name = ""
        self._id: str | None = None
        self._value: list[str] | None = None

    def _read_head(self, held: str) -> Move | None:
        patterns = self._patterns
        if self._scanned - self._head <= LONGEST_HEAD:
            for number in self._spellings:
                found = patterns.heads[number].match(held, self._head)
                if found:
                    return self._begin(number, found.groupdict(), found.end(), held)
        if not held[self._head : self._head + LONGEST_HEAD].strip():
            return None
        if not any(self._possible(held, patterns.leads[number]) for number in self._spellings):
            if patterns.form.arguments != "json" or not patterns.close:
                return self._refuse()
            if held[self._head : self._head + LONGEST_HEAD].lstrip()[0] != "{":
                return self._refuse()
        end = held.find(patterns.close, max(self._head, self._scanned - len(patterns.close))) if patterns.close else -1
        self._scanned = len(held)
        if end >= 0:
            return self._read_loosely(held, end)
        hopeless = patterns.form.arguments != "json" or not patterns.close
        return self._refuse() if hopeless and self._scanned - self._head > LONGEST_HEAD else None

    def _possible(self, held: str, lead: str) -> bool:
        """Whether what is held may still become a head that begins with `lead`."""
        begun = "".join(held[self._head : self._head + LONGEST_HEAD].split())
        return begun.startswith(lead) or lead.startswith(begun)

    def _refuse(self) -> Move:
        return Move(self._head, over=True, refused=True) if self._first else Move(0, over=True)

    def _begin(self, number: int, read: Mapping[str, str | None], end: int, held: str) -> Move | None:
        patterns = self._patterns
        name = read["name"] or ""
        if not patterns.form.open and name not in self._tools:
            return self._refuse()
        self._spellings = [number]
        if patterns.whole:
            self._name, self._id = name, read.get("id")
            self._arguments_at = self._scanned = end
            self._state = "whole"
            return self._read_whole(held)
        self._named(name)
        self._state = "json" if patterns.form.arguments == "json" else "items"
        return Move(end, "", name, read.get("id"))

    def _named(self, name: str) -> None:
        self.named, self._first = True, False
        tool = self._tools.get(name)
        properties = (tool.parameters or {}).get("properties") if tool else None
        self._schema: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}

    def _read_loosely(self, held: str, end: int) -> Move:
        """A call whose keys stand in another order, whole; or none."""
        patterns = self._patterns
        call = json_object(patterns.unmark(held[self._head : end])) if patterns.form.arguments == "json" else None
        name = call.get("name") if call else None
        if call is None or not isinstance(name, str):
            return self._refuse()
        arguments = call.get("arguments", call.get("parameters", {}))
        self._named(name)
        self.closed += 1
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return Move(end + len(patterns.close), text, name, over=True)

    # The arguments

    def _read_whole(self, held: str) -> Move | None:
        """Arguments of a style that is read at their end only."""
        patterns = self._patterns
        gemma = patterns.form.arguments == "gemma"
        at = self._scanned
        while at < len(held):
            if gemma and held.startswith(patterns.string_mark, at):
                self._in_string = not self._in_string
                at += len(patterns.string_mark)
                continue
            if gemma and patterns.string_mark.startswith(held[at:]):
                break
            if self._closes(held[at], gemma):
                return self._converted(held[self._arguments_at : at], at)
            at += 1
        self._scanned = at
        return None

    def _closes(self, character: str, gemma: bool) -> bool:
        """Whether a character closes the arguments."""
        if not gemma and self._value:  # within the quotes of a Python string
            ended = not self._escaped and character == self._value[0]
            self._escaped = character == "\\" and not self._escaped
            self._value = None if ended else self._value
        elif not gemma and character in "'\"":
            self._value = [character]
        elif not self._in_string and character in "{[(":
            self._depth += 1
        elif not self._in_string and character in "}])":
            self._depth -= 1
        return self._depth < 0

    def _converted(self, text: str, end: int) -> Move:
        patterns = self._patterns
        read = from_gemma(text, patterns.string_mark) if patterns.form.arguments == "gemma" else from_python(text)
        if read is None:
            return self._refuse()
        self._named(self._name)
        self._value = None
        self._state = "tail"
        return Move(end, patterns.unmark(read), self._name, self._id)

    def _read_json(self, held: str) -> Move:
        """Up to the brace that closes the arguments, or to what cannot be JSON."""
        close, end = self._patterns.close[:1], 0
        for end, character in enumerate(held, 1):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character in MARKS or (character == close and close not in "{}[]"):
                end -= 1
                self._state = "tail"
                break
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                if self._depth == 0:
                    return self._end_json(held[:end])
            elif character == '"':
                self._in_string = True
        return Move(end, self._patterns.unmark(held[:end]))

    def _end_json(self, held: str) -> Move:
        """The arguments are closed; so is the call, where its format writes nothing behind them."""
        self._state = "tail"
        over = not (self._patterns.close or self._patterns.end_starts[self._spellings[0]])
        self.closed += over
        return Move(len(held), self._patterns.unmark(held), over=over)

    def _read_items(self, held: str) -> Move | None:
        """The next argument's head, or the end of the arguments."""
        patterns = self._patterns
        assert patterns.item is not None
        at = len(held) - len(held.lstrip())
        if at == len(held):
            return None
        if (found := patterns.item.match(held, at)) is not None:
            end = found.end()
            if patterns.line_begins_value:
                if end == len(held):
                    return None
                end += held[end] == "\n"
            key, kind = patterns.unmark(found["key"]), found.groupdict().get("type")
            text = (", " if self._any else "{") + json.dumps(key, ensure_ascii=False) + ": "
            is_string = kind in patterns.strings if kind else string_typed(self._schema.get(key))
            self._value = None if is_string else []
            self._end = patterns.value_end.replace("$key", found["key"])
            self._any = True
            self._state = "value"
            return Move(end, text + '"' if is_string else text)
        ends = [patterns.close, *patterns.openings, patterns.end_starts[self._spellings[0]]]
        if any(held.startswith(text, at) for text in ends if text):
            self._state = "tail"
            return Move(at, "}" if self._any else "{}")
        if len(held) - at > LONGEST_HEAD:  # neither: dropped
            return Move(at + 1)
        return None

    def _read_value(self, held: str) -> Move | None:
        patterns = self._patterns
        end = held.find(self._end)
        ready = end if end >= 0 else len(held) - overlap(held, (self._end, "\n" + self._end))
        text = held[:ready]
        if end >= 0 and patterns.line_ends_value:
            text = text.removesuffix("\n")
        text = patterns.unmark(text)
        if self._value is not None:
            self._value.append(text)
            text = ""
        if end >= 0:
            text = _escaped(text) + '"' if self._value is None else self._value_text("".join(self._value))
            self._state = "items"
            return Move(end + len(self._end), text)
        return Move(ready, _escaped(text)) if ready else None

    def _value_text(self, text: str) -> str:
        """The JSON of a value that is no string."""
        style = self._patterns.form.style
        nested = style is not None and "$key" in style.end
        return (elements_text(text, style.head, style.end) if style and nested else None) or json_text(text)

    # The end

    def _read_tail(self, held: str) -> Move | None:
        patterns = self._patterns
        block = patterns.form.one_block
        ending = patterns.ends[self._spellings[0]].search(held) if block or not patterns.close else None
        if ending is not None and not ending[0]:
            ending = None
        close = held.find(patterns.close) if patterns.close else -1
        others = (held.find(text) for text in patterns.openings if text not in patterns.at_start)
        opening = min((at for at in others if at >= 0), default=-1)
        if ending is not None and (close < 0 or ending.start() <= close) and (opening < 0 or ending.start() < opening):
            self.closed += 1
            self._state = "gap"
            return Move(ending.end(), over=not block)
        if opening >= 0 and (close < 0 or opening < close):
            self.closed += 1
            return Move(opening, over=True)
        if close >= 0:
            self.closed += 1
            return Move(close + len(patterns.close), over=True)
        return Move(len(held) - TAIL) if len(held) > TAIL else None

    def _read_gap(self, held: str) -> Move | None:
        """Between two calls of a block, or at its end."""
        patterns = self._patterns
        rest = held.lstrip(patterns.separators)
        at = len(held) - len(rest)
        if patterns.close and rest.startswith(patterns.close):
            return Move(at + len(patterns.close), over=True)
        if not rest or patterns.close.startswith(rest):
            return None
        if rest.startswith(patterns.call_start):
            self._expect_head(0 if patterns.form.open else 1)
            return Move(at)
        return None if patterns.call_start.startswith(rest) else Move(at, over=True)


def overlap(text: str, ends: Iterable[str]) -> int:
    """Length of the longest end of `text` that is a beginning of one of `ends`, and not all of it."""
    return max((_overlap(text, end) for end in ends), default=0)


def _overlap(text: str, tag: str) -> int:
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
