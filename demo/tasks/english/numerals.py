"""Numbers as people write them: digits, words, thousands with a comma, cents, times of day, lengths of time.

A value is a whole number. Money with cents is counted in cents, a time of day and a length of time in minutes.
"""

import re
from fractions import Fraction
from random import Random
from typing import Literal

Unit = Literal["count", "cents", "clock", "span"]

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = {word: value for value, word in enumerate(ONES)}
WORDS |= {tens: 20 + 10 * i for i, tens in enumerate(TENS)}
WORDS |= {f"{tens}-{ONES[one]}": 20 + 10 * i + one for i, tens in enumerate(TENS) for one in range(1, 10)}
NAMES = {value: word for word, value in WORDS.items()}

HOUR, HALF_DAY = 60, 720
PATTERNS: dict[Unit, str] = {
    "count": "|".join([r"\d{1,3}(?:,\d{3})+", r"\d+", *sorted(WORDS, key=len, reverse=True)]),
    "cents": r"\d+(?:\.\d\d)?",
    "clock": r"\d{1,2}:\d\d",
    "span": r"\d+ hours?(?: and)? \d+ minutes?|\d+ hours?|\d+ minutes?",
}
FOUND = re.compile(
    r"(?P<clock>\d{1,2}:\d\d)|(?P<span>\d+ hours?(?:,? and|,)? \d+ min\w*|\d+ hours?)|(?P<number>\d[\d,]*(?:\.\d+)?)"
)


def write(value: int, unit: Unit, rng: Random | None = None) -> str:
    """`value` as a question spells it; without `rng` in its plainest form."""
    if unit == "cents":
        short = rng is not None and value % 100 == 0
        return str(value // 100) if short else f"{value // 100}.{value % 100:02}"
    if unit == "clock":
        return f"{value // HOUR % 12 or 12}:{value % HOUR:02}"
    if unit == "span":
        return span(value)
    if rng is not None and value in NAMES and rng.random() < (0.25 if value < len(ONES) else 0.1):
        return NAMES[value]
    return f"{value:,}" if rng is not None and rng.random() < 0.15 else str(value)


def span(minutes: int) -> str:
    """A length of time: `1 hour 35 minutes`, without the part that is zero."""
    hours, rest = divmod(minutes, HOUR)
    parts = [f"{n} {name}{'s' * (n != 1)}" for n, name in ((hours, "hour"), (rest, "minute")) if n]
    return " ".join(parts) or "0 minutes"


def read(text: str, unit: Unit) -> int:
    """The inverse of `write`, in lower case. Every form that `PATTERNS` matches is read."""
    if unit == "count":
        return WORDS[text] if text in WORDS else int(text.replace(",", ""))
    if unit == "cents":
        return int(text.replace(".", "")) if "." in text else 100 * int(text)
    if unit == "clock":
        hours, minutes = text.split(":")
        return int(hours) * HOUR + int(minutes)
    hours_and_minutes = [re.search(rf"(\d+) {name}", text) for name in ("hour", "minute")]
    return sum(
        int(match[1]) * size for match, size in zip(hours_and_minutes, (HOUR, 1), strict=True) if match is not None
    )


def stated(answer: str) -> frozenset[Fraction]:
    """What an answer says last, since a reply may repeat the question first: a number, a time of day, or a length of
    time, which counts in minutes and, in whole hours or minutes, as that number too. Empty where it says no number."""
    text = answer.lower()
    found = list(FOUND.finditer(text))
    if not found:
        words = [WORDS[word] for word in re.findall(r"[a-z-]+", text) if word in WORDS]
        return frozenset(map(Fraction, words[-1:]))
    last = found[-1]
    if last["number"]:
        return frozenset({Fraction(last["number"].rstrip(",").replace(",", ""))})
    if last["clock"]:
        return frozenset({Fraction(read(last["clock"], "clock"))})
    numbers = re.findall(r"\d+", last["span"])
    return frozenset(map(Fraction, [read(last["span"], "span"), *(numbers if len(numbers) == 1 else [])]))
