"""Holds a reply to its limits while it runs: budget, answer reserve, and what the client asks for in between.

One long engine request with a watcher beside it, not many short ones. A controller hands a delta to `Watcher.look` only
from position `look_at` on; before, a token costs one comparison. Where the engine holds budgets itself and the cut is
hard, it makes the cut (`native_budget`), and the watcher only makes sure: a second opening tag restarts the engine's
count.

An answer under a grammar begins with a segment of its own: the watcher ends the one before it as soon as the thinking
is closed, before anything of the answer has been taken.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from controllers.generation.deltas import single
from controllers.generation.events import BudgetUse, Cut, CutBy, Decision, Finished, Interrupt, Progress
from controllers.generation.parser import UNDECIDED
from controllers.generation.state import Reply, behind_opening, forgets_penalties, takes_no_phrase
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Policy
from controllers.route import Forced
from controllers.rules.budget import (
    NEVER,
    Bounds,
    CutStyle,
    between_sentences,
    ends_line,
    reply_bounds,
    thinking_bounds,
)
from controllers.rules.declared_budget import BudgetField
from controllers.rules.grammar import ShapedAnswer
from models.engines.base import Delta
from models.formats.chunks import Chunk

CHECKPOINT_SECONDS = 1.0  # about so often a reply with a budget reports its progress
CHECKPOINT_TOKENS = 64  # and so many tokens apart while the pace is unknown


class Watcher:
    """Watches one reply. `handover` says that the running request is to be closed and the next segment asked for."""

    __slots__ = (
        "_answer",
        "_asked_of_engine",
        "_bounds",
        "_checkpoint",
        "_cut",
        "_cut_by",
        "_field",
        "_interrupt",
        "_lead",
        "_limited",
        "_manner",
        "_native",
        "_policy",
        "_reply",
        "_scope",
        "_tail",
        "handover",
        "look_at",
    )

    def __init__(self, reply: Reply, policy: Policy, interrupt: Interrupt | None = None) -> None:
        route = reply.route
        self._reply = reply
        self._policy = policy
        self._interrupt = interrupt
        self._scope = "answer" if route.family.scope == "reply" else "reasoning"
        self._limited = route.family.scope is not None and (policy.budget is not None or policy.reserve > 0)
        unkind = takes_no_phrase(reply)
        if unkind and policy.insists and self._limited:
            raise PolicyError(f"reasond.cut: {unkind}", "reasond.cut")
        tolerance = None if unkind else policy.tolerance
        self._answer = ShapedAnswer(reply)
        self._manner = CutStyle(len(route.wrap_up.token_ids), len(route.closing.token_ids), tolerance)
        self._native = route.native_budget and self._scope == "reasoning"
        self._bounds: Bounds | None = None
        self._lead = 0
        self._field = BudgetField(reply, bounded=policy.reserve > 0)
        self._tail = ""
        self._cut: Cut | None = None
        self._cut_by: CutBy | None = None
        self._checkpoint = 0
        self._asked_of_engine = False
        self.handover = False
        self.look_at = 0  # the first delta is looked at, for the clock
        if interrupt is not None:
            interrupt.listen(self._wake)
            interrupt.refusal = interrupt.refusal or unkind

    def begin(self) -> None:
        """The forced prefix has been told to the reply's parser; it may have opened the scope."""
        if self._in_scope:
            self._open()
            self._lead = behind_opening(self._reply) if self._native and self._limited else 0

    @property
    def undecided(self) -> bool:
        """Whether the model has not yet shown what it does: its mode, or its own budget."""
        return self._reply.parser.section in UNDECIDED and self._reply.finish is None

    def limits(self) -> dict[str, Any]:
        """What the next segment's engine request must keep to."""
        reply, position = self._reply, self._reply.position
        self.handover = False
        changes: dict[str, Any] = {}
        if reply.sampling.whole and self._follows:
            changes["whole"] = False
        if self._policy.reserve:
            changes["max_tokens"] = reply.most - position
            self._check_phrase()
        changes |= self._answer.settings()
        if reply.voice.route.ends is not None:
            changes["stop_token_ids"] = (*reply.sampling.stop_token_ids, reply.voice.route.ends)
        bounds = self._expected()
        if bounds is None or bounds.end == NEVER:
            return changes
        if self._scope == "answer" and self._in_scope:
            changes["max_tokens"] = min(reply.most, bounds.end) - position
        self._asked_of_engine = self._native and bounds.hard and reply.voice is reply.own
        if self._asked_of_engine:
            changes["thinking_budget"] = self._lead + bounds.end - bounds.opened
        elif self._scope == "reasoning" and (penalty := forgets_penalties(reply.sampling)):
            raise PolicyError(f"{penalty}: cannot be kept up over a cut of the thinking on this route", penalty)
        return changes

    def _check_phrase(self) -> None:
        """A whole reply with a reserve is told to come to its answer, and goes on behind the phrase."""
        penalty = forgets_penalties(self._reply.sampling)
        if penalty and self._scope == "answer" and self._reply.shape is None:
            raise PolicyError(f"{penalty}: cannot be kept up over a cut of the thinking on this route", penalty)

    @property
    def room(self) -> int:
        """Tokens that may still be written before the server must write something itself."""
        bounds = self._bounds if self._in_scope else None
        end = self._reply.most if bounds is None else min(self._reply.most, bounds.phrase)
        return end - self._reply.position

    def look(self, delta: Delta) -> list[Chunk | Progress]:
        """As `Reply.take`, token by token, with an eye on everything that can end a stretch."""
        reply = self._reply
        if not reply.clock.running:
            if delta.finish is None:  # a reply that comes at once tells nothing of the engine's pace
                reply.clock.began(reply.position + len(delta.token_ids), first=reply.segments == 1)
            reply.cached_tokens = reply.cached_tokens or delta.cached_tokens
        said: list[Chunk | Progress] = []
        said += self._steps(delta) if self._limited or self._watched or self._answer.awaited else reply.take(delta)
        if reply.finish is None and not self.handover and (progress := self._progress()) is not None:
            said.append(progress)
        self._schedule()
        return said

    def due(self) -> list[Chunk]:
        """What must be written before the next segment: the end of a stretch that may have no token at all."""
        bounds = self._bounds if self._in_scope else None
        cut = None if bounds is None else bounds.cut(self._reply.position, False)
        return [] if bounds is None or cut is None else self._end_stretch(bounds, cut, bounds.by)

    def left(self) -> list[Chunk]:
        """The request is over. If the reply is not, because the client has cancelled it, it ends with what it has."""
        if self._interrupt is None or not self._interrupt.cancelled or self._reply.finish is not None:
            return []
        self._reply.cancelled = True
        return self._reply.end("stop")

    def decided(self, decision: Decision) -> Decision:
        """The decision with the budget, and how long it will be to the answer."""
        return replace(decision, budget=self._use(decision.mode), seconds_to_answer=self._seconds_to_answer())

    def finished(self, decision: Decision) -> Finished:
        reply = self._reply
        if reply.stopped_by == reply.route.ends and reply.route.ends not in reply.sampling.stop_token_ids:
            reply.stopped_by = None  # the family's own end of a reply
        return reply.finished(decision, self._use(decision.mode), self._cut, self._cut_by)

    # One token at a time

    def _steps(self, delta: Delta) -> list[Chunk]:
        said: list[Chunk] = []
        steps = list(single(delta))
        for index, step in enumerate(steps):
            cut = self._cut_before(step)
            if cut is None and self._answer.comes_too_soon(step):
                return said + self._to_answer(steps[index:])
            if cut is None:
                said += self._step(step)
                index += 1
                cut = self._cut_behind()
                if self._answer.begins:
                    return said + self._to_answer(steps[index:])
            if cut is not None and self._bounds is not None:
                self._reply.discarded_tokens += sum(len(rest.token_ids) for rest in steps[index:])
                said += self._end_stretch(self._bounds, *cut)
            elif self._field.overfull:
                self._reply.discarded_tokens += sum(len(rest.token_ids) for rest in steps[index:])
                said += self._end_field()
            if self._reply.finish is not None or self.handover:
                break
        return said

    def _end_field(self) -> list[Chunk]:
        """The model does not come to its solution by itself: it goes on from there in the next segment."""
        chunks = self._reply.write(self._reply.route.to_solution)
        self._open()
        self.handover = True
        return chunks

    def _to_answer(self, behind: Sequence[Delta]) -> list[Chunk]:
        """Ends the segment: the answer begins with the next one, and what is `behind` is thrown away."""
        self._reply.discarded_tokens += sum(len(step.token_ids) for step in behind)
        chunks = self._answer.lead()
        self.handover = self._reply.finish is None
        return chunks

    def _step(self, step: Delta) -> list[Chunk]:
        """Takes one token, and marks what it changes."""
        reply, position = self._reply, self._reply.position
        was_in_scope = self._in_scope
        chunks = reply.take(step)
        self._field.saw(chunks)
        if self._bounds is None and self._in_scope:
            self._open()
        elif was_in_scope and not self._in_scope and self._engine_closed(position):
            chunks = [replace(chunk, logprobs=None, forced=True) for chunk in chunks]
        if reply.parser.section == "after" and reply.finish is None:
            chunks += reply.end("stop")
        for chunk in chunks:
            self._tail = (self._tail + chunk.text)[-4:]
        return chunks

    def _engine_closed(self, position: int) -> bool:
        """Whether the tag at `position` is the engine's: behind the last token it lets nothing but the tag through."""
        bounds = self._bounds
        if not self._asked_of_engine or bounds is None or position < bounds.end:
            return False
        self._cut, self._cut_by = "hard", bounds.by
        return True

    def _cut_before(self, step: Delta) -> tuple[Cut, CutBy] | None:
        """A cut that this token shows to be due: a sentence has ended, or the engine let a token past the end."""
        bounds, position = self._bounds, self._reply.position
        if bounds is None or not self._in_scope:
            return None
        if position >= bounds.end:
            closes = self._asked_of_engine and self._reply.parser.closes(step.token_ids[0])
            return None if closes else ("hard", bounds.by)
        if position >= bounds.window and between_sentences(self._tail, step.text):
            return "line_end", bounds.by
        return None

    def _cut_behind(self) -> tuple[Cut, CutBy] | None:
        reply, bounds = self._reply, self._bounds
        if bounds is None or not self._in_scope or (reply.finish is not None and reply.position < bounds.end):
            return None
        if (now := self._answer_now(bounds)) is not None:
            return now
        if self._asked_of_engine:
            return None
        cut = bounds.cut(reply.position, ends_line(self._tail))
        return None if cut is None or reply.finish == "stop" else (cut, bounds.by)

    def _answer_now(self, bounds: Bounds) -> tuple[Cut, CutBy] | None:
        """The client's wish comes before the budget's end, as long as what must be written still fits."""
        reply, interrupt = self._reply, self._interrupt
        if interrupt is None or interrupt.wish != "answer" or self._cut_by == "client":
            return None
        if reply.finish is not None or interrupt.refusal is not None:
            return None
        room = min(bounds.end, reply.most - self._manner.closing - 1) - reply.position
        if self._manner.phrase and self._manner.phrase <= room:
            return "wrap_up", "client"
        return ("hard", "client") if self._scope == "reasoning" else None

    def _end_stretch(self, bounds: Bounds, cut: Cut, by: CutBy) -> list[Chunk]:
        """Writes what ends the stretch in this way. Thinking is closed and the answer follows in the next segment; a
        reply gets its last lines there, or is closed."""
        reply = self._reply
        self._cut, self._cut_by = cut, by
        reply.finish = None
        phrase = reply.route.wrap_up if cut != "hard" else Forced()
        room = bounds.end - reply.position
        chunks = reply.write(phrase) if len(phrase.token_ids) <= room else []
        if self._scope == "answer" and cut != "hard":
            self._bounds = bounds.without_grace()
            self.handover = True
            return chunks
        chunks += reply.write(reply.route.closing)
        if self._scope == "answer" or reply.position >= reply.most:
            return chunks + reply.end("length")
        self.handover = True
        return chunks

    # What there is to watch

    @property
    def _in_scope(self) -> bool:
        return self._reply.parser.section == self._scope

    @property
    def _watched(self) -> bool:
        """Whether something not of the policy is to be watched: the model's own budget, or the client's wish."""
        wished = self._interrupt is not None and self._interrupt.wish is not None
        return wished or self._reply.route.family.budget is not None

    @property
    def _follows(self) -> bool:
        """Whether something must be done while the reply is written: a cut, or an end that only text shows."""
        return self._limited or self._policy.hold_declared or self._reply.route.solution_is_text

    def _open(self) -> None:
        """The scope begins with what is already counted in it: a token may be half tag and half text."""
        reply = self._reply
        used = reply.answer_tokens if self._scope == "answer" else reply.reasoning_tokens
        self._field.closed()
        self._bounds = self._bounds_from(reply.position - used - reply.parser.pending)

    def _bounds_from(self, opened: int) -> Bounds:
        policy, most = self._policy, self._reply.most
        budget = policy.budget
        if policy.hold_declared and self._field.declared is not None:
            budget = self._field.declared if budget is None else min(budget, self._field.declared)
        bounds = reply_bounds if self._scope == "answer" else thinking_bounds
        return bounds(opened, budget, most, policy.reserve, self._manner)

    def _expected(self) -> Bounds | None:
        """The bounds of the scope that is open, or of thinking if it opens with the next token."""
        if self._in_scope:
            return self._bounds
        if self._limited and self._scope == "reasoning" and self._reply.parser.section in UNDECIDED:
            return self._bounds_from(self._reply.position + 1)
        return None

    def _schedule(self) -> None:
        bounds = self._bounds
        if self._answer.awaited:
            self.look_at = 0
        elif self._reply.parser.section in UNDECIDED:
            self.look_at = 0 if self._limited or self._watched else NEVER
        elif self._in_scope and self._reply.route.solution_is_text:
            self.look_at = 0
        elif not self._in_scope or bounds is None:
            self.look_at = NEVER
        elif self._interrupt is not None and self._interrupt.wish is not None and self._cut_by != "client":
            self.look_at = 0
        else:
            end = bounds.end + 1 if self._asked_of_engine else bounds.window
            self.look_at = min(end, self._checkpoint) if self._target is not None else end

    def _wake(self) -> None:
        self.look_at = min(self.look_at, 0)

    # Time

    @property
    def _target(self) -> int | None:
        """Tokens in scope after which the answer is there, as far as one can know."""
        bounds = self._bounds
        limit = bounds.limit if bounds is not None and bounds.by == "budget" else None  # a reserve is no forecast
        if self._field.declared is None or limit is None:
            return self._field.declared if limit is None else limit
        return min(self._field.declared, limit)

    def _seconds_to_answer(self) -> float | None:
        target, reply, bounds = self._target, self._reply, self._bounds
        if target is None or bounds is None or not self._in_scope:
            return None
        if not reply.clock.running:
            return reply.route.pace.ahead(target)
        left = max(0, target - (reply.position - bounds.opened))
        return reply.route.pace.remaining(left, *reply.clock.written(reply.position))

    def _progress(self) -> Progress | None:
        """The record as it stands, about once a second."""
        position = self._reply.position
        if position < self._checkpoint or self._target is None or not self._in_scope:
            return None
        first = self._checkpoint == 0
        self._reply.clock.report(position)
        tokens, seconds = self._reply.clock.written(position)
        self._checkpoint = position + max(
            8, int(CHECKPOINT_SECONDS * tokens / seconds) if tokens else CHECKPOINT_TOKENS
        )
        use = self._use("think")
        return None if first or use is None else Progress(use, self._seconds_to_answer())

    def _use(self, mode: str) -> BudgetUse | None:
        """The budget as it stands; None where nobody asked for one and nothing limits the reply."""
        policy, reply, scope = self._policy, self._reply, self._reply.route.family.scope
        limit = self._bounds.limit if self._bounds is not None else None
        if self._bounds is None and mode == "no_think" and policy.requested is not None:
            limit = 0
        if scope is None or (policy.requested is None and limit is None and self._field.declared is None):
            return None
        used = reply.answer_tokens if scope == "reply" else reply.reasoning_tokens
        return BudgetUse(scope, policy.requested, self._field.declared, limit, used)
