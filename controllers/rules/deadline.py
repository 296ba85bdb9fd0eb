"""The thinking ends where the answer would else begin too late, at the pace at which this reply is written now."""

import time

from controllers.generation.bounds import NEVER, ends_line
from controllers.generation.state import ReplyState
from controllers.rules.base import Action, Rule
from controllers.rules.limits import ScopeLimits

LOOKS = 4
"""So often the rule looks in the time that is left, for the pace may change: each time after a quarter of it."""


class BeginsInTime(Rule):
    """Near its deadline the thinking ends at a line end, at the deadline wherever it stands. What the engine takes to
    begin again behind the cut is kept free, and the time of the closing text and of the answer's first token."""

    __slots__ = ("_at", "_limits")

    def __init__(self, limits: ScopeLimits, at: float) -> None:
        self._limits = limits
        self._at = at

    def asleep_until(self, state: ReplyState) -> int:
        if not self._limits.in_scope(state):
            return NEVER
        left = self._tokens_left(state)
        return state.position + (1 if left is None else max(1, left // LOOKS))

    def after_token(self, state: ReplyState) -> Action | None:
        limits, bounds = self._limits, self._limits.bounds(state)
        if bounds is None or state.finish is not None or not limits.in_scope(state):
            return None
        left = self._tokens_left(state)
        if left is None:
            return None
        if 0 < left <= (limits.style.tolerance or 0) and ends_line(state.tail):
            return limits.ending(state, bounds, "line_end", "deadline")
        return limits.ending_now(state, bounds, "deadline") if left <= 0 else None

    def _tokens_left(self, state: ReplyState) -> int | None:
        """Tokens until the deadline. None: there is time, and no pace is known."""
        pace, clock = state.route.pace, state.clock
        written = clock.written(state.position) if clock.running else (0, 0.0)
        seconds = self._at - time.perf_counter() - pace.begins_again
        each = pace.remaining(1, *written)
        if not each:
            return None if seconds > 0 else 0
        return int(seconds / each) - self._limits.style.closing - 1
