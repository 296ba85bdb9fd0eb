"""Where a budget ends a stretch of tokens, and how kindly. Pure: positions in, a cut out.

A position is the number of tokens that a reply has, forced ones included, so one comparison a token tells whether a
limit is near. A stretch that must end is ended at a line or sentence end near its limit if one comes (`line_end`), else
in mid-line with the family's phrase (`wrap_up`); where no phrase fits, its last token is just its last (`hard`).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from controllers.policy.controls import Cut

NEVER = 2**62
SENTENCE_ENDS = (".", "!", "?", "…")
MOST_DECLARED = 10**9 - 1
"""The largest number that counts as a declared budget."""
FULL_WIDTH_ENDS = ("\n", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class CutStyle:
    """How a stretch is ended, in tokens: the phrase and the closing text that the server writes, and how far before its
    last chance a line end is taken. `tolerance` None: always a hard cut."""

    phrase: int
    closing: int
    tolerance: int | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """A stretch's limits as positions. From `window` on a line end is taken; at `phrase` the phrase is written wherever
    the text stands; no token in scope stands at `end` or beyond. The closing text is behind `end`. `by` says what set
    the end: the budget, or the reserve of answer tokens."""

    opened: int
    window: int = NEVER
    phrase: int = NEVER
    end: int = NEVER
    by: Literal["budget", "reserve"] = "budget"

    @property
    def limit(self) -> int | None:
        """Tokens that the stretch may have."""
        return None if self.end == NEVER else self.end - self.opened

    @property
    def hard(self) -> bool:
        """Whether only a hard cut can end it."""
        return self.window == self.end

    def without_grace(self) -> "Bounds":
        return replace(self, window=self.end, phrase=self.end)

    def cut(self, position: int, at_boundary: bool) -> Cut | None:
        """How to end the stretch here and now, if it has to end."""
        if position >= self.end:
            return "hard"
        if position >= self.phrase:
            return "wrap_up"
        return "line_end" if at_boundary and position >= self.window else None


@lru_cache  # a reply asks for its own some ten times
def thinking_bounds(opened: int, budget: int | None, most: int, reserve: int, manner: CutStyle) -> Bounds:
    """Bounds of thinking that began at `opened`. Of the reply's `most` tokens, `reserve` and the closing text are the
    answer's; with no reserve thinking may take them all."""
    bounds = _hard(opened, budget, most - reserve - manner.closing if reserve else NEVER)
    if bounds.limit is None or manner.tolerance is None:
        return bounds
    fits = manner.phrase and 2 * manner.phrase <= bounds.limit
    phrase = bounds.end - manner.phrase if fits else bounds.end
    return replace(bounds, window=_window(opened, phrase, manner.tolerance), phrase=phrase)


@lru_cache
def reply_bounds(opened: int, budget: int | None, most: int, reserve: int, manner: CutStyle) -> Bounds:
    """Bounds of a whole reply that began at `opened`: the phrase is followed by `reserve` tokens of answer, or by as
    many as there is room for, inside the budget. Without a reserve there is nothing to be kind with: the cut is hard.
    """
    bounds = _hard(opened, budget, most if reserve else NEVER)
    if manner.tolerance is None or not reserve or not manner.phrase or bounds.end - opened <= manner.phrase:
        return bounds
    phrase = max(opened, bounds.end - reserve - manner.phrase)
    return replace(bounds, window=_window(opened, phrase, manner.tolerance), phrase=phrase)


def _hard(opened: int, budget: int | None, last: int) -> Bounds:
    end = NEVER if budget is None else opened + budget
    if last < end:
        end = max(last, opened)
        return Bounds(opened, end, end, end, "reserve")
    return Bounds(opened, end, end, end)


def _window(opened: int, last: int, tolerance: int) -> int:
    """A line end is never taken in the first half of a stretch."""
    return max(last - tolerance, opened + (last - opened + 1) // 2)


def ends_line(text: str) -> bool:
    """Whether the text so far ends a line, or a sentence in a script that puts no space behind it."""
    return text.rstrip(" \t").endswith(FULL_WIDTH_ENDS)


def between_sentences(text: str, following: str) -> bool:
    """Whether a sentence ends with `text` and `following` begins behind it ("3." and "14" do not)."""
    return text.endswith(SENTENCE_ENDS) and following[:1].isspace()


def declared_budget(text: str) -> int | None:
    """The number in a model's own budget field, or None where it wrote something else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST_DECLARED)) else None
