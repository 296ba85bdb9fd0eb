"""Rules: what may end a stretch of a reply before its model does. The driver asks them; they only look and answer.

A rule is asked at four moments, and sleeps in between: before an engine request begins, for the limits of that request,
before a token is taken, and behind it. It never writes the state. The first rule that wants something gets it; the
order is that of `controllers.rules.RULES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controllers.generation.bounds import NEVER
from controllers.generation.events import ExitUse
from controllers.generation.route import Forced
from controllers.generation.state import ReplyState
from controllers.policy.controls import Cut, CutBy
from models.engines.base import Delta, Finish


@dataclass(frozen=True, slots=True)
class Action:
    """The running request ends. The server writes `write`, then the reply goes on in a new request, or ends with
    `finish`. `cut` and `cut_by` go into the record. `wrapped_up` says that the model has been told to come to an end,
    `begins_answer` that the answer begins here without a tag. A reply with no token left ends with "length".
    `note` is a key and its value for the record.
    """

    write: tuple[Forced, ...] = ()
    finish: Finish | None = None
    cut: Cut | None = None
    cut_by: CutBy | None = None
    wrapped_up: bool = False
    begins_answer: bool = False
    note: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one rule asks of the next engine request. `max_tokens` bounds the request; the lowest of all rules counts.
    `changes` are other fields of its `Sampling`."""

    max_tokens: int = NEVER
    changes: Mapping[str, Any] = field(default_factory=dict)


NO_LIMITS = EngineLimits()


class Rule:
    """The answers of a rule that wants nothing. Subclasses override what concerns them."""

    __slots__ = ()

    def asleep_until(self, state: ReplyState) -> int:
        """The position from which on tokens are to be shown to this rule, as long as the section stays the same."""
        return NEVER

    def before_segment(self, state: ReplyState) -> Action | None:
        """What must be done before the next engine request; the reply may then need none."""
        return None

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        """Raises `PolicyError` where the request cannot be served as it asks."""
        return NO_LIMITS

    def before_token(self, state: ReplyState, token: Delta) -> Action | None:
        """`token` has arrived and is not yet taken. With an action it is thrown away."""
        return None

    def after_token(self, state: ReplyState) -> Action | None:
        return None

    def segment_ended(self) -> None:
        """The engine request is over: what the rule has running beside it is to end."""

    def exit_use(self) -> ExitUse | None:
        """For the record of the reply that has ended: what an early exit did."""
        return None
