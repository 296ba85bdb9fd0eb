"""Rules that may end a stretch of a reply, each in a file of its own. `RULES` is their order, and the place to add one.

Where two rules want something at one token, the first of the table gets it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controllers.generation.events import Interrupt
from controllers.generation.state import ReplyState, forgets_penalties
from controllers.policy.controls import PolicyError
from controllers.rules.answer_now import AnswerNow
from controllers.rules.base import Rule
from controllers.rules.budget import Budget
from controllers.rules.deadline import BeginsInTime
from controllers.rules.declared_budget import DeclaredBudget, EndOfSolution
from controllers.rules.grammar import AnswerGrammar
from controllers.rules.limits import ScopeLimits
from controllers.rules.loop import Loop
from models.engines.base import Grammar


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a rule may be built from: the reply before its first token, its limits, and what the client asked for."""

    state: ReplyState
    limits: ScopeLimits
    interrupt: Interrupt
    grammar: Grammar | None


def _budget(context: RuleContext) -> Rule | None:
    limits = context.limits
    watched = limits.limited or limits.policy.hold_declared or limits.route.family.budget is not None
    return Budget(limits) if watched else None


def _declared_budget(context: RuleContext) -> Rule | None:
    bounded = context.limits.policy.reserve > 0 and context.state.route.family.budget is not None
    return DeclaredBudget(context.limits) if bounded else None


def _end_of_solution(context: RuleContext) -> Rule | None:
    return EndOfSolution() if context.state.route.solution_is_text else None


def _grammar(context: RuleContext) -> Rule | None:
    return None if context.grammar is None else AnswerGrammar(context.state.route, context.grammar)


def _loop(context: RuleContext) -> Rule | None:
    """A reply that cannot be cut, or whose answer may repeat under a grammar, is let be."""
    settings = context.state.route.defaults.loop
    free = context.grammar is None and forgets_penalties(context.state.sampling) is None
    return Loop(settings, context.limits) if settings is not None and free else None


def _deadline(context: RuleContext) -> Rule | None:
    limits, deadline = context.limits, context.limits.policy.deadline
    if deadline is None or limits.section != "reasoning" or limits.policy.mode == "no_think":
        return None
    if penalty := forgets_penalties(context.state.sampling):
        if deadline.by == "load":
            return None
        raise PolicyError(f"{penalty}: cannot be kept up where a deadline may cut the thinking", penalty)
    return BeginsInTime(limits, deadline.at)


RULES: Mapping[str, Callable[[RuleContext], Rule | None]] = MappingProxyType(
    {
        "answer_now": lambda context: AnswerNow(context.limits, context.interrupt),
        "loop": _loop,
        "deadline": _deadline,
        "budget": _budget,
        "declared_budget": _declared_budget,
        "end_of_solution": _end_of_solution,
        "grammar": _grammar,
    }
)
"""Every rule by name: makes the rule for one reply, or None where the reply cannot need it."""


def rules_for(context: RuleContext) -> tuple[Rule, ...]:
    """The rules of one reply, in their order."""
    made = (make(context) for make in RULES.values())
    return tuple(rule for rule in made if rule is not None)
