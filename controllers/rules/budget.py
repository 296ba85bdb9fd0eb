"""The budget of the scope, and the reserve of answer tokens behind it.

One long engine request with a rule beside it, not many short ones. Where the engine keeps budgets itself and the cut is
hard, it makes the cut, and this rule only makes sure of it: a second opening tag restarts the engine's count.
"""

from typing import Any

from controllers.generation.bounds import NEVER, between_sentences, ends_line
from controllers.generation.state import ReplyState, forgets_penalties
from controllers.policy.controls import PolicyError
from controllers.rules.base import NO_LIMITS, Action, EngineLimits, Rule
from controllers.rules.limits import ScopeLimits
from models.engines.base import Delta
from models.formats.parser import UNDECIDED


class Budget(Rule):
    """Ends the scope at its budget, or where the answer's reserve begins, whichever comes first."""

    __slots__ = ("_limits",)

    def __init__(self, limits: ScopeLimits) -> None:
        self._limits = limits

    def asleep_until(self, state: ReplyState) -> int:
        limits = self._limits
        if state.parser.section in UNDECIDED:
            return 0 if limits.limited or limits.route.family.budget is not None else NEVER
        bounds = limits.bounds(state)
        if bounds is None or not limits.in_scope(state):
            return NEVER
        return bounds.end + 1 if state.engine_budget else bounds.window

    def before_segment(self, state: ReplyState) -> Action | None:
        """The scope may end before it has a token."""
        limits, bounds = self._limits, self._limits.bounds(state)
        if bounds is None or not limits.in_scope(state):
            return None
        cut = bounds.cut(state.position, False)
        return None if cut is None else limits.ending(state, bounds, cut, bounds.by)

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        limits, policy = self._limits, self._limits.policy
        behind = state.parser.section == "answer" and limits.section == "reasoning"
        changes: dict[str, Any] = {"whole": False} if (limits.limited and not behind) or policy.hold_declared else {}
        most = state.max_tokens - state.position if policy.reserve else NEVER
        penalty = forgets_penalties(state.sampling)
        if policy.reserve and penalty and limits.section == "answer" and not limits.formatted:
            raise _lost(penalty)
        bounds = limits.expected(state)
        if bounds is None or bounds.end == NEVER:
            return EngineLimits(most, changes) if changes or most != NEVER else NO_LIMITS
        if limits.section == "answer" and limits.in_scope(state):
            most = min(state.max_tokens, bounds.end) - state.position
        if limits.native and bounds.hard and state.writer is state.own:
            changes["thinking_budget"] = limits.lead + bounds.end - bounds.opened
        elif limits.section == "reasoning" and penalty:
            raise _lost(penalty)
        return EngineLimits(most, changes)

    def before_token(self, state: ReplyState, token: Delta) -> Action | None:
        """A token may show that a cut is due: a sentence has ended, or the engine let a token past the end."""
        limits, bounds = self._limits, self._limits.bounds(state)
        if bounds is None or not limits.in_scope(state):
            return None
        if state.position >= bounds.end:
            closes = state.engine_budget and state.parser.closes(token.token_ids[0])
            return None if closes else limits.ending(state, bounds, "hard", bounds.by)
        if state.position >= bounds.window and between_sentences(state.tail, token.text):
            return limits.ending(state, bounds, "line_end", bounds.by)
        return None

    def after_token(self, state: ReplyState) -> Action | None:
        limits, bounds = self._limits, self._limits.bounds(state)
        if bounds is None or not limits.in_scope(state) or state.engine_budget or state.finish == "stop":
            return None
        if state.finish is not None and state.position < bounds.end:
            return None
        cut = bounds.cut(state.position, ends_line(state.tail))
        return None if cut is None else limits.ending(state, bounds, cut, bounds.by)


def _lost(penalty: str) -> PolicyError:
    return PolicyError(f"{penalty}: cannot be kept up over a cut of the thinking on this route", penalty)
