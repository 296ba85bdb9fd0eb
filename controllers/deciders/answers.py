"""Whether two answers are the same, by what is compared of them."""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

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


def gist(answer: str, calls: tuple[tuple[str, str], ...], compared: Compared) -> object | None:
    """What two replies must have in common to be the same. Calls go before text."""
    return tuple(map(_call, calls)) if calls else COMPARISONS[compared](answer)


def _call(call: tuple[str, str]) -> tuple[str, str]:
    name, arguments = call
    try:
        return name, json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return name, arguments
