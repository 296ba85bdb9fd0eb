"""What bounds one reply: the stretch that its budget counts, and how that stretch is ended. Pure: state in, limits out.

The scope is the stretch of tokens that a budget counts: the thinking, or the whole reply of a model that declares its
own budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controllers.generation.answer_format import AnswerFormat
from controllers.generation.bounds import Bounds, CutStyle, reply_bounds, thinking_bounds
from controllers.generation.events import BudgetUse
from controllers.generation.route import Forced, Route
from controllers.generation.state import ReplyState, forgets_penalties
from controllers.policy.controls import Cut, CutBy, PolicyError
from controllers.policy.fold import Policy
from controllers.rules.base import Action
from models.engines.base import Sampling
from models.formats.parser import UNDECIDED
from models.formats.reasoning import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeLimits:
    """The limits of one reply's scope. `section` is the parser's section that is the scope, `limited` whether a budget
    or a reserve bounds it, `native` whether the engine can keep a hard budget itself, and `lead` how many tokens of the
    prompt the engine counts as thinking. `formatted`: the answer has a grammar or calls. `refusal` says why the model
    cannot be told to come to an end, if it cannot.
    """

    route: Route
    policy: Policy
    section: Section
    limited: bool
    style: CutStyle
    native: bool
    lead: int
    formatted: bool
    refusal: str | None

    def in_scope(self, state: ReplyState) -> bool:
        return state.parser.section == self.section

    def bounds(self, state: ReplyState) -> Bounds | None:
        """The bounds of the scope where it has begun."""
        if state.scope_opened is None:
            return None
        bounds = self._bounds_from(state, state.scope_opened)
        return bounds.without_grace() if state.wrapped_up else bounds

    def expected(self, state: ReplyState) -> Bounds | None:
        """The bounds of the scope that is open, or of thinking if it opens with the next token."""
        if self.in_scope(state):
            return self.bounds(state)
        if self.limited and self.section == "reasoning" and state.parser.section in UNDECIDED:
            return self._bounds_from(state, state.position + 1)
        return None

    def _bounds_from(self, state: ReplyState, opened: int) -> Bounds:
        policy, budget = self.policy, self.policy.budget
        if policy.hold_declared and state.declared is not None:
            budget = state.declared if budget is None else min(budget, state.declared)
        bounds = reply_bounds if self.section == "answer" else thinking_bounds
        return bounds(opened, budget, state.max_tokens, policy.reserve, self.style)

    def opened_at(self, state: ReplyState) -> int:
        """Where the scope began that is open now. What is already counted in it counts: a token may be half tag and
        half text, and a second block of thinking goes on where the first one ended."""
        used = state.answer_tokens if self.section == "answer" else state.reasoning_tokens
        return state.position - used - state.parser.pending

    def room(self, state: ReplyState) -> int:
        """Tokens that may still be written before the server must write something itself."""
        bounds = self.bounds(state) if self.in_scope(state) else None
        end = state.max_tokens if bounds is None else min(state.max_tokens, bounds.phrase)
        return end - state.position

    def ending(self, state: ReplyState, bounds: Bounds, cut: Cut, by: CutBy) -> Action:
        """What ends the scope in this way. Thinking is closed, and the answer follows; a whole reply gets its last
        lines behind the phrase, or is closed."""
        phrase = Forced() if cut == "hard" else self.route.wrap_up
        fits = len(phrase.token_ids) <= bounds.end - state.position
        write = (phrase,) if fits and phrase.token_ids else ()
        if self.section == "answer" and cut != "hard":
            return Action(write, cut=cut, cut_by=by, wrapped_up=True)
        finish = "length" if self.section == "answer" else None
        return Action((*write, self.route.closing), finish, cut, by)  # type: ignore[arg-type]

    def ending_now(self, state: ReplyState, bounds: Bounds, by: CutBy) -> Action | None:
        """What ends the scope wherever it stands, as long as it fits: with the phrase, else thinking hard."""
        room = min(bounds.end, state.max_tokens - self.style.closing - 1) - state.position
        if self.style.phrase and self.style.phrase <= room:
            return self.ending(state, bounds, "wrap_up", by)
        return self.ending(state, bounds, "hard", by) if self.section == "reasoning" else None

    def use(self, state: ReplyState, mode: str) -> BudgetUse | None:
        """The budget as it stands; None where nobody asked for one and nothing limits the reply."""
        scope, requested = self.route.family.scope, self.policy.requested
        bounds = self.bounds(state)
        limit = bounds.limit if bounds is not None else None
        if limit is None and mode == "no_think" and requested is not None:
            limit = 0
        unasked = bounds is not None and bounds.by == "reserve" and scope == "thinking"
        told = limit is not None and not (unasked and state.cut is None)  # what nobody asked for and nothing came of
        if scope is None or not (told or requested is not None or state.declared is not None):
            return None
        used = state.answer_tokens if scope == "reply" else state.reasoning_tokens
        return BudgetUse(scope, requested, state.declared, limit, used)

    def forecast(self, state: ReplyState) -> int | None:
        """Tokens in scope after which the answer is there, as far as one can know."""
        bounds = self.bounds(state)
        limit = bounds.limit if bounds is not None and bounds.by == "budget" else None  # a reserve is no forecast
        if state.declared is None or limit is None:
            return state.declared if limit is None else limit
        return min(state.declared, limit)

    def seconds_to_answer(self, state: ReplyState) -> float | None:
        forecast = self.forecast(state)
        if forecast is None or state.scope_opened is None or not self.in_scope(state):
            return None
        if not state.clock.running:
            return state.route.pace.ahead(forecast)
        remaining = max(0, forecast - (state.position - state.scope_opened))
        return state.route.pace.remaining(remaining, *state.clock.written(state.position))


def scope_limits(state: ReplyState, policy: Policy, answer: AnswerFormat | None) -> ScopeLimits:
    """The limits of a reply of which nothing is written. Raises `PolicyError` where the client insists on an end that
    the reply cannot have."""
    route = state.route
    if policy.mode == "no_think" and policy.budget == 0:
        policy = replace(
            policy, budget=None
        )  # it is the mode that holds; should the model think, that is told as it is
    section: Section = "answer" if route.family.scope == "reply" else "reasoning"
    native = route.native_budget and section == "reasoning"
    if section == "reasoning" and forgets_penalties(state.sampling) and (policy.insists or not native):
        policy = replace(policy, reserve=0)  # what no request asks for is no reason to refuse one
    limited = route.family.scope is not None and (policy.budget is not None or policy.reserve > 0)
    refusal = _takes_no_phrase(route, state.sampling, answer)
    if refusal and policy.insists and limited:
        raise PolicyError(f"reasond.cut: {refusal}", "reasond.cut")
    counts = native and limited and state.parser.section == section
    return ScopeLimits(
        route=route,
        policy=policy,
        section=section,
        limited=limited,
        style=CutStyle(
            len(route.wrap_up.token_ids), len(route.closing.token_ids), None if refusal else policy.tolerance
        ),
        native=native,
        lead=_behind_opening(route, state.prompt) if counts else 0,
        formatted=answer is not None,
        refusal=refusal,
    )


def _behind_opening(route: Route, prompt: Sequence[int]) -> int:
    """Tokens of the prompt that an engine's native budget counts as thinking: those behind the opening tag."""
    opening = route.engine.tokenizer.control_id(route.family.thinking[0]) if route.family.thinking else None
    return next((count for count, token_id in enumerate(reversed(prompt)) if token_id == opening), 0)


def _takes_no_phrase(route: Route, sampling: Sampling, answer: AnswerFormat | None) -> str | None:
    """Why the server may not wrap up what the reply's budget counts, if so."""
    if penalty := forgets_penalties(sampling):
        return f"{penalty}: cannot be kept up over a cut of the thinking"
    if answer is not None and route.family.scope == "reply":
        return "the answer of this request is tool calls or has a format: it cannot be wrapped up"
    return None
