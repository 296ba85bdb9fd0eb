"""Everyday English: things to say, which need no working out, and arithmetic in plain words, which mostly does.

    Nora has 347 stamps and gets 285 more. How many stamps does she have now?
    thought: 347+285, digit by digit (see `steps`)      answer: 632

Level 0 is everyday talk; levels 1 to 4 are arithmetic, from what is known by heart to four digits. `arithmetic.toml`
holds the kinds of questions and their wordings, `words.toml` what fills them; the talk is that of `talk`.
`held_out.txt` keeps what the demo is judged by out of training.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from random import Random
from typing import Any

from demo.tasks.english import clock, numerals, steps, talk
from demo.tasks.english.numerals import Unit
from demo.tasks.english.templates import MARKS, Wording

NOTHING = (
    "There is nothing to work out here, so I can answer at once.",
    "No sums here. I just answer.",
    "This is everyday talk. Nothing to calculate.",
    "This needs no arithmetic. I can simply reply.",
)
OPENERS = (
    "Hi! ",
    "Hello, ",
    "Hey, ",
    "Please tell me: ",
    "Quick question: ",
    "Can you help me? ",
    "Question: ",
    "So, ",
)
CLOSERS = (
    " Thanks!",
    " Thank you.",
    " Please.",
    " Just the answer please.",
    " Can you work it out?",
    " I can't work it out.",
)
DECORATED, LOWERED, UNMARKED = 0.15, 0.12, 0.15
TRIES = 2000
SUFFIXES = ("", "2")
PRONOUNS: Mapping[str, Mapping[str, str]] = {
    "he": {"he": "he", "his": "his", "him": "him"},
    "she": {"he": "she", "his": "her", "him": "her"},
}


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question: `ranges` holds, for each level from 1 on, the numbers' bounds (or what
    they are in terms of those before them), or nothing."""

    formula: str
    ranges: tuple[Mapping[str, Sequence[int] | str], ...]
    wordings: tuple[Wording, ...]
    units: Mapping[str, Unit]
    unit: Unit
    weight: float

    def solve(self, values: Mapping[str, int]) -> tuple[str, str]:
        """The thought and the answer. `steps.NotWhole` where it has none in whole numbers."""
        if self.formula in clock.FORMULAS:
            thought, value = clock.FORMULAS[self.formula](values)
        else:
            thought, value = steps.work(self.formula, values)
        if self.unit == "cents":
            given = ", ".join(
                numerals.write(values[name], "cents") for name in self.units if self.units[name] == "cents"
            )
            return f"{given}\n{thought}", numerals.write(value, "cents")
        return thought, numerals.write(value, self.unit)

    def answer(self, values: Mapping[str, int]) -> str | None:
        """The answer, or None where it is not a whole number."""
        try:
            return self.solve(values)[1]
        except steps.NotWhole:
            return None

    def draw_values(self, level: int, rng: Random) -> dict[str, int]:
        """Random numbers of a level for which the question has an answer."""
        for _ in range(TRIES):
            values: dict[str, int] = {}
            for name, bounds in self.ranges[level - 1].items():
                values[name] = steps.work(bounds, values)[1] if isinstance(bounds, str) else _number(bounds, rng)
            if self.answer(values) not in (None, "0"):
                return values
        raise ValueError(f"no numbers of level {level} fit {self.formula}")


def _number(bounds: Sequence[int], rng: Random) -> int:
    """Between two bounds, in steps of a third; of more than three numbers, one of them."""
    return rng.choice(bounds) if len(bounds) > 3 else rng.randrange(bounds[0], bounds[1] + 1, *bounds[2:])


class English:
    """Level 0 is everyday talk, levels 1 to 4 arithmetic."""

    difficulties = range(5)

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        """A random question, but for those that the demo is judged by."""
        while True:
            text, thought, answer = self._draw(difficulty, rng)
            if digest(text) not in self.held_out:
                return text, thought, answer

    def _draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        if difficulty == 0:
            said, answer = rng.choice(self.talk)
            return typed(said.fill({}, {}, rng), rng), rng.choice(NOTHING), answer
        level = [family for family in self.families if self._asks(family, difficulty)]
        family = rng.choices(level, [family.weight for family in level])[0]
        values = family.draw_values(difficulty, rng)
        text = rng.choice(family.wordings).fill(values, self._words(rng), rng)
        return typed(decorated(text, rng), rng), *family.solve(values)

    def is_correct(self, text: str, answer: str) -> bool:
        """Arithmetic: the number that the answer states last is right. Talk: there is an answer."""
        right = self.solve(text)
        if right is None:
            return bool(answer.strip())
        return bool(numerals.stated(answer) & numerals.stated(right))

    @lru_cache(maxsize=65536)  # noqa: B019  # one instance, as long as the process
    def solve(self, text: str) -> str | None:
        """The answer to a question of this task; None for everyday talk. ValueError for any other text."""
        plain = plainly(text)
        for family in self.families:
            for wording in family.wordings:
                values = wording.values(plain)
                if values is not None and (answer := family.answer(values)) is not None:
                    return answer
        if any(said.values(text.lower().rstrip(MARKS)) is not None for said, _ in self.talk):
            return None
        raise ValueError(f"not a question of this task: {text!r}")

    @cached_property
    def families(self) -> tuple[QuestionKind, ...]:
        table = tomllib.loads(_read("arithmetic.toml"))
        return tuple(_family(entry, table["ranges"], self._patterns) for entry in table["family"])

    @cached_property
    def talk(self) -> list[tuple[Wording, str]]:
        """What is said, and an answer to it."""
        return [(Wording(said), answer) for said, answer in talk.exchanges()]

    @cached_property
    def held_out(self) -> frozenset[str]:
        """`digest`s of the questions that are never drawn, so that the demo can be judged by them."""
        return frozenset(_read("held_out.txt").split())

    @cached_property
    def _lists(self) -> dict[str, list[Any]]:
        """Words by the slots that they fill: `thing_things` holds pairs."""
        return tomllib.loads(_read("words.toml"))["lists"]  # type: ignore[no-any-return]

    @cached_property
    def _patterns(self) -> dict[str, str]:
        """What may fill a slot, as a pattern on lower-case text."""
        found = {"n": [name for name, _ in self._people]}
        found |= {word: [forms[word] for forms in PRONOUNS.values()] for word in PRONOUNS["he"]}
        for slots, entries in self._lists.items():
            for i, slot in enumerate(slots.split("_")):
                found[slot] = [entry if isinstance(entry, str) else entry[i] for entry in entries]
        return {slot: f"(?:{'|'.join(re.escape(word.lower()) for word in said)})" for slot, said in found.items()}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        return tomllib.loads(_read("words.toml"))["names"]  # type: ignore[no-any-return]

    def _words(self, rng: Random) -> dict[str, str]:
        """A word for every slot that a wording may have; those of one list differ."""
        words: dict[str, str] = {}
        for (name, he), suffix in zip(rng.sample(self._people, 2), SUFFIXES, strict=True):
            words |= {f"n{suffix}": name} | {f"{word}{suffix}": said for word, said in PRONOUNS[he].items()}
        for slots, entries in self._lists.items():
            for entry, suffix in zip(rng.sample(entries, 2), SUFFIXES, strict=True):
                forms = [entry] if isinstance(entry, str) else entry
                words |= {f"{slot}{suffix}": form for slot, form in zip(slots.split("_"), forms, strict=True)}
        return words

    @cached_property
    def _people(self) -> list[tuple[str, str]]:
        return [(name, he) for he in PRONOUNS for name in self._names[he]]

    @staticmethod
    def _asks(family: QuestionKind, level: int) -> bool:
        return len(family.ranges) >= level and bool(family.ranges[level - 1])


def _family(entry: Mapping[str, Any], ranges: Mapping[str, Any], words: Mapping[str, str]) -> QuestionKind:
    bounds = ranges[entry["ranges"]] if isinstance(entry["ranges"], str) else entry["ranges"]
    units: dict[str, Unit] = {name: "count" for level in bounds for name in level} | entry.get("units", {})
    return QuestionKind(
        formula=entry["formula"],
        ranges=tuple(bounds),
        wordings=tuple(Wording(text, units, words) for text in entry["wordings"]),
        units=units,
        unit=entry.get("unit", "count"),
        weight=entry.get("weight", 1.0),
    )


def decorated(text: str, rng: Random) -> str:
    """The question, now and then with a greeting before it or a wish behind it."""
    if rng.random() > DECORATED:
        return text
    return rng.choice(OPENERS) + text if rng.random() < 0.5 else text + rng.choice(CLOSERS)


def typed(text: str, rng: Random) -> str:
    """The text with capitals where sentences begin; now and then all in lower case, or without its last mark."""
    if rng.random() < UNMARKED:
        text = text.rstrip(MARKS)
    if rng.random() < LOWERED:
        return text.lower()
    return re.sub(r"(^|[.?!:] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def plainly(text: str) -> str:
    """The inverse of `decorated` and `typed`, in lower case and without a last mark."""
    text = text.lower().rstrip(MARKS)
    for opener in OPENERS:
        text = text.removeprefix(opener.lower())
    ends = [closer.lower().rstrip(MARKS) for closer in CLOSERS]
    text = text.removesuffix(max((end for end in ends if text.endswith(end)), key=len, default=""))
    return text.rstrip(MARKS)


def digest(text: str) -> str:
    """A question's name in `held_out.txt`, however it is decorated and typed."""
    return hashlib.sha256(plainly(text).encode()).hexdigest()[:16]


def _read(name: str) -> str:
    return files("demo.tasks.english").joinpath(name).read_text()
