"""What the rules share that end a settled thought: where they may look, and how it is ended.

Nothing ran out, so the closing tag stands alone, without the phrase that tells a model to come to an end.
"""

from typing import Generic, TypeVar

from controllers.generation.bounds import NEVER, between_sentences, ends_line
from controllers.generation.events import ExitUse
from controllers.generation.state import ReplyState
from controllers.policy.controls import Cut
from controllers.policy.exits import EarlyExitConfig
from controllers.rules.base import NO_LIMITS, Action, EngineLimits, Rule
from controllers.rules.limits import ScopeLimits
from models.engines.base import Delta

S = TypeVar("S", bound=EarlyExitConfig)


class EarlyExit(Rule, Generic[S]):
    """`looks` and `best` are for the record: how often it looked, and the nearest that the thought came to its end."""

    __slots__ = ("_best", "_limits", "_looks", "_settings")

    def __init__(self, settings: S, limits: ScopeLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._looks = 0
        self._best: float | None = None

    def asleep_until(self, state: ReplyState) -> int:
        """The target's turn is let be."""
        thinks = state.scope_opened is not None and self._limits.in_scope(state) and state.writer is state.own
        return state.scope_opened + self._settings.after if thinks and state.scope_opened is not None else NEVER

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        """Somebody must read along while the model may think."""
        if state.parser.section == "answer" or state.writer is not state.own:
            return NO_LIMITS
        return EngineLimits(changes={"whole": False})

    def exit_use(self) -> ExitUse:
        return ExitUse(self._settings.rule, self._looks, self._best)

    def _ending(self, cut: Cut) -> Action:
        return Action((self._limits.route.closing,), cut=cut, cut_by="settled")


def sentence_over(state: ReplyState, token: Delta) -> bool:
    """Whether a line or a sentence has ended before this token."""
    return ends_line(state.tail) or between_sentences(state.tail, token.text)
