"""Whether two answers are the same, by what is compared of them."""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

from controllers.generation.events import Event, Finished
from models.formats.chunks import Chunk

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'])")
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")

Compared = Literal["text", "number", "choice", "boxed"]


def _text(answer: str) -> str | None:
    return " ".join(answer.casefold().split()).strip(" .!\"'`*") or None


def _number(answer: str) -> str | None:
    found = NUMBER.findall(answer)
    return str(Decimal(found[-1].replace(",", "")).normalize()) if found else None


def _choice(answer: str) -> str | None:
    return next(reversed(CHOICE.findall(answer)), None)


def _boxed(answer: str) -> str | None:
    found = BOXED.findall(answer)
    return _text(found[-1]) if found else None


COMPARISONS: Mapping[Compared, Callable[[str], str | None]] = MappingProxyType(
    {"text": _text, "number": _number, "choice": _choice, "boxed": _boxed}
)
"""What counts of an answer: all of its text, its last number, its last option letter, what stands in its last box.
None: there is none, and nothing agrees with it."""


class Answer:
    """What a reply answers: its text, and its calls, as its events tell it."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._names: list[str] = []
        self._arguments: list[str] = []
        self.end: Finished | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.end = event
        elif isinstance(event, Chunk) and event.call is not None:
            if event.call.name is not None:
                self._names.append(event.call.name)
                self._arguments.append("")
            self._arguments[-1] += event.text
        elif isinstance(event, Chunk) and event.kind == "answer":
            self._text.append(event.text)

    @property
    def whole(self) -> bool:
        """Whether it ended by itself."""
        return self.end is not None and self.end.reason == "stop" and not self.end.cancelled

    @property
    def text(self) -> str:
        return "".join(self._text)

    def gist(self, compared: Compared) -> object | None:
        """What another answer must have in common to be the same. Calls go before text. None: there is nothing."""
        calls = tuple(map(_call, zip(self._names, self._arguments, strict=True)))
        return calls or COMPARISONS[compared](self.text)


def _call(call: tuple[str, str]) -> tuple[str, str]:
    name, arguments = call
    try:
        return name, json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return name, arguments
