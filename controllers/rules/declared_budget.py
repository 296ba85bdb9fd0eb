"""A model that declares its own budget, and the solution that stands between tags behind it."""

from controllers.generation.bounds import NEVER
from controllers.generation.state import ReplyState
from controllers.rules.base import NO_LIMITS, Action, EngineLimits, Rule
from controllers.rules.limits import ScopeLimits
from models.formats.parser import UNDECIDED


class DeclaredBudget(Rule):
    """Brings a model to its solution that does not come there by itself.

    What comes before the solution is short. Where tokens are reserved for an answer, it has as many tokens as the
    longest number takes.
    """

    __slots__ = ("_limits",)

    def __init__(self, limits: ScopeLimits) -> None:
        self._limits = limits

    def asleep_until(self, state: ReplyState) -> int:
        return self._limits.route.longest_field if state.parser.section in UNDECIDED else NEVER

    def after_token(self, state: ReplyState) -> Action | None:
        undecided = state.parser.section in UNDECIDED and state.finish is None
        overfull = undecided and state.position >= self._limits.route.longest_field
        return Action((self._limits.route.to_solution,)) if overfull else None


class EndOfSolution(Rule):
    """Ends the reply behind a solution whose end is known by its characters only: there is no token to stop at."""

    __slots__ = ()

    def asleep_until(self, state: ReplyState) -> int:
        return 0 if state.parser.section == "answer" else NEVER

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        return EngineLimits(changes={"whole": False}) if state.sampling.whole else NO_LIMITS

    def after_token(self, state: ReplyState) -> Action | None:
        return Action(finish="stop") if state.parser.section == "after" and state.finish is None else None
