"""An answer under a grammar: a segment of its own, which begins where the thinking ends.

Nothing of the answer is taken before it: the token that would begin it too soon is thrown away, and so is the end of a
reply whose model stopped in mid-thought, for the client relies on an answer.
"""

from controllers.generation.answer_format import AnswerFormat
from controllers.generation.bounds import NEVER
from controllers.generation.route import Forced, Route
from controllers.generation.state import ReplyState, forgets_penalties
from controllers.policy.controls import PolicyError
from controllers.rules.base import NO_LIMITS, Action, EngineLimits, Rule
from models.engines.base import Delta, Grammar, Sampling


class AnswerGrammar(Rule):
    """Begins the answer in a segment of its own while `state.grammar_pending`."""

    __slots__ = ("_grammar", "_route")

    def __init__(self, route: Route, grammar: Grammar) -> None:
        self._route = route
        self._grammar = grammar

    def asleep_until(self, state: ReplyState) -> int:
        return 0 if _pending(state) else NEVER

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        if not _pending(state):
            return NO_LIMITS
        if state.parser.section == "answer" or self._route.answers_at_once:
            return EngineLimits(changes={"grammar": self._grammar})
        if penalty := forgets_penalties(state.sampling):
            raise PolicyError(f"{penalty}: cannot be kept up from the thinking to an answer with a format", penalty)
        return NO_LIMITS

    def before_token(self, state: ReplyState, token: Delta) -> Action | None:
        """This token may end the reply, or begin the answer, before the grammar is there."""
        if not _pending(state):
            return None
        ends = token.finish == "stop" and token.stopped_by is None
        begins = (
            state.parser.section == "start" and bool(token.token_ids) and not state.parser.opens(token.token_ids[0])
        )
        return self._lead(state) if ends or begins else None

    def after_token(self, state: ReplyState) -> Action | None:
        """The last token may have led to the answer."""
        begins = _pending(state) and state.parser.section == "answer" and state.finish is None
        return self._lead(state) if begins else None

    def _lead(self, state: ReplyState) -> Action:
        """What is missing before the answer: the closing text, or the rest of it behind the model's own tag."""
        closing = self._route.closing
        if state.parser.section == "reasoning":
            return Action((closing,))
        if state.parser.section in ("start", "budget"):
            return Action(begins_answer=True)
        closed = state.spans[-1].token_ids[-1:] == list(closing.token_ids[:1])
        if self._route.family.scope == "thinking" and closed:
            return Action((Forced(closing.token_ids[1:], closing.pieces[1:]),))
        return Action()


def _pending(state: ReplyState) -> bool:
    """Whether the grammar is still to come. A call that the model begins in its thinking is read as it stands."""
    return state.grammar_pending and not (state.parser.in_call or state.parser.calls_begun)


def grammar_of(route: Route, answer: AnswerFormat | None, sampling: Sampling) -> Grammar | None:
    """The grammar that the answer is to have. One that nobody relies on is left out where it cannot be had. Raises
    `PolicyError` where the answer's beginning could fall within a token."""
    if answer is None or answer.grammar is None:
        return None
    if not route.tags.by_text and (answer.required or forgets_penalties(sampling) is None):
        return answer.grammar
    if answer.required:
        raise PolicyError("response_format: the thinking tags of this route's model are no tokens", "response_format")
    return None
