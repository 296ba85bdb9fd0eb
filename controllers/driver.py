"""The one loop of every reply: ask an engine for a segment, take its tokens, let the rules look, act, and emit.

Whoever iterates `Driver.drive` gets a decision, chunks and progress, then one `Finished`. Closing it closes the
engine's stream, which aborts the request in the engine.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from controllers.generation.bounds import NEVER, declared_budget
from controllers.generation.deltas import next_item, single
from controllers.generation.events import Decision, Event, Interrupt, Progress, TargetUse
from controllers.generation.state import TAIL, ReplyState
from controllers.rules.base import Action, Rule
from controllers.rules.limits import ScopeLimits
from models.engines.base import Delta, EngineError, Prompt, Sampling
from models.formats.chunks import Chunk
from models.formats.parser import UNDECIDED

REPORT_SECONDS = 1.0  # about so often a reply with a budget reports its progress
REPORT_TOKENS = 64  # and so many tokens apart while the pace is unknown


class TurnTaking(Protocol):
    """What lets a second model write stretches of the reply. It decides who writes the next segment, holds tokens back
    until it is known whether they stand, and admits them to the driver."""

    @property
    def timeout(self) -> float | None: ...
    def asleep_until(self) -> int: ...
    def before_segment(self, driver: "Driver") -> list[Event]: ...
    async def hand_over(self, driver: "Driver") -> list[Event]: ...
    def engine_limits(self, driver: "Driver", changes: dict[str, Any]) -> dict[str, Any]: ...
    def first_delta(self, prompt: Prompt, delta: Delta) -> None: ...
    def receive(self, driver: "Driver", delta: Delta) -> list[Event]: ...
    @property
    def score_due(self) -> bool: ...
    async def score(self, driver: "Driver") -> list[Event]: ...
    def segment_ended(self, seconds: float) -> None: ...
    def failed(self, driver: "Driver", error: EngineError | TimeoutError) -> list[Event]: ...
    def finished(self) -> TargetUse: ...


class Driver:
    """Drives one reply. `decision` is None where the model's own first tokens decide the mode: what is emitted before
    that is kept until then."""

    __slots__ = (
        "_announced",
        "_cache_salt",
        "_interrupt",
        "_kept",
        "_rules",
        "_section",
        "_turns",
        "decision",
        "limits",
        "state",
    )

    def __init__(
        self,
        state: ReplyState,
        limits: ScopeLimits,
        rules: Sequence[Rule],
        interrupt: Interrupt,
        decision: Decision | None,
        *,
        cache_salt: str | None = None,
        turns: TurnTaking | None = None,
    ) -> None:
        self.state = state
        self.limits = limits
        self.decision = decision
        self._rules = tuple(rules)
        self._interrupt = interrupt
        self._cache_salt = cache_salt
        self._turns = turns
        self._announced = False
        self._kept: list[Event] = []
        self._section = state.parser.section
        self._sync_scope()
        interrupt.listen(self._wake)
        interrupt.refusal = interrupt.refusal or limits.refusal

    @staticmethod
    async def drive(prepare: Callable[[], Awaitable["Driver"]]) -> AsyncGenerator[Event, None]:
        """The events of one reply. Raises `PolicyError` for what cannot be kept up over several segments, and what the
        engine raises."""
        self = await prepare()
        state, turns = self.state, self._turns
        for event in self._announce([]):
            yield event
        while state.finish is None:
            for event in self._announce(self._before_segment()):
                yield event
            if state.finish is not None:
                break
            began = time.perf_counter()
            try:
                for event in self._announce([] if turns is None else await turns.hand_over(self)):
                    yield event
                prompt, sampling = self._next_request()
                timeout = None if turns is None else turns.timeout
                first = True
                async with aclosing(state.writer.route.engine.generate(prompt, sampling)) as stream:
                    while not state.over:
                        delta = await next_item(stream, self._interrupt, timeout)
                        if delta is None:
                            break
                        if first:
                            first = False
                            self._first_delta(prompt, delta)
                        events = self._receive(delta)
                        while turns is not None and turns.score_due:
                            events += await turns.score(self)
                        for event in events if self._announced else self._announce(events):
                            yield event
            except (EngineError, TimeoutError) as error:
                if turns is None:
                    raise
                for event in self._announce(turns.failed(self, error)):
                    yield event
            finally:
                if turns is not None:
                    turns.segment_ended(time.perf_counter() - began)
            if self._interrupt.cancelled and state.finish is None:
                state.cancelled = True
                for event in self._announce(self._emit(state.end("stop"))):
                    yield event
        target = None if turns is None else turns.finished()
        decision = self.decision or self._model_s_own()
        yield state.finished(decision, self.limits.use(state, decision.mode), target)

    # A segment

    def _before_segment(self) -> list[Event]:
        """What comes before the next request: the end of a scope that may have no token at all."""
        events: list[Event] = []
        for rule in self._rules:
            if (action := rule.before_segment(self.state)) is not None:
                events += self.act(action)
                break
        if self.state.finish is None and self.state.full:
            events += self._emit(self.state.end("length"))
        if self.state.finish is None and self._turns is not None:
            events += self._turns.before_segment(self)
        return events

    def _next_request(self) -> tuple[Prompt, Sampling]:
        """The next request, within what all rules allow."""
        state = self.state
        changes: dict[str, Any] = {}
        most = NEVER
        for rule in self._rules:
            limits = rule.engine_limits(state)
            most = min(most, limits.max_tokens)
            changes |= limits.changes
        if most != NEVER:
            changes["max_tokens"] = most
        changes["stop_token_ids"] = state.engine_stop_ids()
        if self._turns is not None:
            changes = self._turns.engine_limits(self, changes)
        state.engine_budget = "thinking_budget" in changes
        state.grammar_pending = state.grammar_pending and "grammar" not in changes
        self._schedule()
        return state.next_request(self._cache_salt, changes)

    def _first_delta(self, prompt: Prompt, delta: Delta) -> None:
        self.state.first_delta(delta)
        if self._turns is not None:
            self._turns.first_delta(prompt, delta)

    # Tokens

    def _receive(self, delta: Delta) -> list[Event]:
        """While every rule sleeps, a delta costs one comparison."""
        state, count = self.state, len(delta.token_ids)
        if state.position + count < state.wake_at and (count == 1 or not state.one_by_one):
            chunks = state.take(delta)
            if state.parser.section != self._section:
                self._sync_scope()
                self._schedule()
            return chunks  # type: ignore[return-value]
        if self._turns is not None:
            return self._turns.receive(self, delta)
        events: list[Event] = []
        tokens = list(single(delta))
        for number, token in enumerate(tokens):
            events += self.admit(token)
            if state.over:
                state.discarded_tokens += len(tokens) - number - 1
                break
        return events + self.report()

    def admit(self, token: Delta) -> list[Event]:
        """Takes one token, unless a rule ends the segment before it."""
        state = self.state
        for rule in self._rules:
            if (action := rule.before_token(state, token)) is not None:
                state.discarded_tokens += len(token.token_ids)
                return self.act(action)
        before, was_in_scope = state.position, self.limits.in_scope(state)
        chunks = state.take(token)
        if was_in_scope and not self.limits.in_scope(state) and self._engine_closed(before):
            chunks = [replace(chunk, logprobs=None, forced=True) for chunk in chunks]
            state.parser.shut()
        events = self._emit(chunks)
        for rule in self._rules:
            if (action := rule.after_token(state)) is not None:
                return events + self.act(action)
        return events

    def act(self, action: Action) -> list[Event]:
        """Ends the segment as a rule wants it."""
        state = self.state
        state.finish = None
        if action.cut is not None:
            state.cut, state.cut_by = action.cut, action.cut_by
        state.wrapped_up = state.wrapped_up or action.wrapped_up
        if action.note is not None:
            state.notes = {**state.notes, action.note[0]: action.note[1]}
        if action.begins_answer:
            state.parser.begin_answer()
        chunks = [chunk for text in action.write for chunk in state.write(text)]
        if action.cut is not None:
            state.parser.shut()
        if action.finish is not None or state.full:
            chunks += state.end(action.finish or "length")
        state.segment_over = True
        return self._emit(chunks)

    def _engine_closed(self, position: int) -> bool:
        """Whether the tag at `position` is the engine's: behind the last token it lets nothing but the tag through."""
        bounds = self.limits.bounds(self.state)
        if not self.state.engine_budget or bounds is None or position < bounds.end:
            return False
        self.state.cut, self.state.cut_by = "hard", bounds.by
        return True

    def _emit(self, chunks: Sequence[Chunk]) -> list[Event]:
        """Keeps of the text what rules read: the budget field, and the tail of what was written."""
        state = self.state
        for chunk in chunks:
            if chunk.kind == "budget":
                state.budget_text += chunk.text
            state.tail = (state.tail + chunk.text)[-TAIL:]
        if state.parser.section != self._section:
            self._sync_scope()
        return list(chunks)

    def _sync_scope(self) -> None:
        """The section has changed: the scope may have begun."""
        state = self.state
        self._section = state.parser.section
        if self.limits.in_scope(state):
            state.declared = declared_budget(state.budget_text)
            state.scope_opened = self.limits.opened_at(state)

    # When to look again

    def _schedule(self) -> None:
        state = self.state
        wake_at = min((rule.asleep_until(state) for rule in self._rules), default=NEVER)
        if self._turns is not None:
            wake_at = min(wake_at, self._turns.asleep_until())
        if self.limits.in_scope(state) and self.limits.forecast(state) is not None:
            wake_at = min(wake_at, state.next_report)
        state.wake_at = wake_at

    def _wake(self) -> None:
        self.state.wake_at = 0

    # What clients are told

    @property
    def undecided(self) -> bool:
        """Whether the model has not yet shown what it does: its mode, or its own budget."""
        return self.state.parser.section in UNDECIDED and self.state.finish is None

    def _model_s_own(self) -> Decision:
        thinks = self.state.parser.section == "reasoning" or self.state.reasoning_tokens > 0
        return Decision("think" if thinks else "no_think", "model", self.state.prompt)

    def _announce(self, events: Sequence[Event]) -> Sequence[Event]:
        """What may be told now: nothing until the decision is known, then it first."""
        if self._announced:
            return events
        self._kept += events
        if self.undecided:
            return []
        self._announced = True
        decision = self.decision or self._model_s_own()
        use, seconds = self.limits.use(self.state, decision.mode), self.limits.seconds_to_answer(self.state)
        if use is not None or seconds is not None:
            decision = replace(decision, budget=use, seconds_to_answer=seconds)
        self.decision = decision
        kept, self._kept = self._kept, []
        return [self.decision, *kept]

    def report(self) -> list[Event]:
        """The record as it stands, about once a second; then schedules when to look again."""
        state, limits = self.state, self.limits
        reports: list[Event] = []
        due = state.position >= state.next_report and not state.over
        if due and limits.in_scope(state) and limits.forecast(state) is not None:
            first = state.next_report == 0
            state.clock.report(state.position)
            tokens, seconds = state.clock.written(state.position)
            apart = int(REPORT_SECONDS * tokens / seconds) if tokens and seconds else REPORT_TOKENS
            state.next_report = state.position + max(8, apart)
            use = limits.use(state, "think")
            if not first and use is not None:
                reports.append(Progress(use, limits.seconds_to_answer(state)))
        self._schedule()
        return reports
