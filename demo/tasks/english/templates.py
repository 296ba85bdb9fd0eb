"""Wordings: `{n} [has|owns] {a} {things}.` is a text with slots and alternatives.

A wording is filled at random, and matched again: the numbers of a question, and so its answer, are found from its text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from demo.tasks.english import numerals
from demo.tasks.english.numerals import Unit

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
PART = re.compile(r"\[(?P<alternatives>[^\[\]]*)\]|\{(?P<slot>\w+)\}")
WORD = r"[a-z'. -]+?"
MARKS = "?.! "
"""What may stand at the end of a text or not."""


@dataclass(frozen=True)
class Wording:
    """One wording. A slot of one letter that `units` names is a number; every other slot is a word."""

    text: str
    units: Mapping[str, Unit] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    """The pattern of what may fill a slot; for a slot like `n2` that of `n`."""

    def fill(self, values: Mapping[str, int], words: Mapping[str, str], rng: Random) -> str:
        """A random one of the texts that this wording stands for."""
        text = ALTERNATIVES.sub(lambda match: rng.choice(match[1].split("|")), self.text)
        text = re.sub(" +", " ", text).replace(" ?", "?").replace(" .", ".").strip()

        def slot(match: re.Match[str]) -> str:
            name = match["slot"]
            if name not in self.units:
                return words[name]
            money = text[: match.start()].endswith("$")  # nobody writes $five
            return numerals.write(values[name], self.units[name], None if money and values[name] < 1000 else rng)

        return PART.sub(slot, text)

    def values(self, text: str) -> dict[str, int] | None:
        """The numbers of a text that this wording made, in lower case and without its last mark; None for another."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        return {name: numerals.read(said, self.units[name]) for name, said in match.groupdict().items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        text, end, pattern = self.text.lower().rstrip(MARKS), 0, ""
        for part in PART.finditer(text):
            pattern += _literal(text[end : part.start()]) + self._part(part, seen)
            end = part.end()
        return re.compile(pattern + _literal(text[end:]))

    def _part(self, part: re.Match[str], seen: set[str]) -> str:
        slot = part["slot"]
        if slot is None:
            return f"(?:{'|'.join(self._alternative(choice) for choice in part['alternatives'].split('|'))})"
        if slot not in self.units:
            return self._word(slot)
        if slot in seen:
            return f"(?P={slot})"
        seen.add(slot)
        return f"(?P<{slot}>{numerals.PATTERNS[self.units[slot]]})"

    def _alternative(self, text: str) -> str:
        return re.sub(r"\\\{(\w+)\\\}", lambda match: self._word(match[1]), _literal(text))

    def _word(self, slot: str) -> str:
        return self.words.get(slot.rstrip("2"), WORD)


def _literal(text: str) -> str:
    """The pattern of a text; around an empty alternative a space may be missing."""
    return re.escape(text).replace(r"\ ", " *")
