"""The client asks for the answer while the model thinks: the scope ends as a budget would end it."""

from controllers.generation.bounds import NEVER
from controllers.generation.events import Interrupt
from controllers.generation.state import ReplyState
from controllers.rules.base import Action, Rule
from controllers.rules.limits import ScopeLimits


class AnswerNow(Rule):
    """Ends the scope at the client's wish, as long as what must be written still fits. `interrupt` wakes the driver."""

    __slots__ = ("_interrupt", "_limits")

    def __init__(self, limits: ScopeLimits, interrupt: Interrupt) -> None:
        self._limits = limits
        self._interrupt = interrupt

    def asleep_until(self, state: ReplyState) -> int:
        wished = self._interrupt.wish is not None and state.cut_by != "client" and self._limits.in_scope(state)
        return 0 if wished else NEVER

    def after_token(self, state: ReplyState) -> Action | None:
        if self._interrupt.wish != "answer" or self._interrupt.refusal is not None or state.cut_by == "client":
            return None
        limits, bounds = self._limits, self._limits.bounds(state)
        if bounds is None or state.finish is not None or not limits.in_scope(state):
            return None
        return limits.ending_now(state, bounds, "client")
