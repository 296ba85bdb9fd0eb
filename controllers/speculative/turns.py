"""Two models at one reply: who writes the next segment, and what of the small model's text stands.

The driver asks (`controllers.driver.TurnTaking`). A guide (`takeovers.py`) reads along and rules; what it
has not ruled on yet is held back here, and goes through the driver's rules when it stands.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from controllers.driver import Driver
from controllers.generation.bounds import NEVER
from controllers.generation.deltas import single
from controllers.generation.events import Event, Interrupt, TargetFailure, TargetUse
from controllers.generation.route import Forced
from controllers.generation.state import ReplyState
from controllers.policy.fold import Policy
from controllers.speculative.takeovers import Ruling, Takeover, guide_for
from controllers.speculative.target import Target, TargetSlow, give_up_on
from models.engines.base import Delta, EngineError, Prompt, PromptTooLong
from models.formats.parser import UNDECIDED
from models.formats.reasoning import ReasoningFormat, Section

NOTHING = Forced()


class Turns:
    """The turns of one reply.

    `takeover` is the one under way, None while the small model writes. `held` are tokens of the small model that wait
    for a ruling, `backlog` those that came behind tokens which wait for a score. `alone`: the target is not asked any
    more.
    """

    def __init__(self, state: ReplyState, target: Target, policy: Policy, interrupt: Interrupt) -> None:
        limits = policy.lengths or target.model.lengths
        self._state = state
        self._target = target
        self._guide = guide_for(target.model.settings, limits, target.model.cues)
        self._interrupt = interrupt
        self._sections = thinking_sections(state.route.family)
        self._max_target_tokens = NEVER if limits.target_tokens is None else limits.target_tokens
        self._held: list[Delta] = []
        self._backlog: deque[Delta] = deque()
        self._opened = self._wrote = False
        self._prompt = NOTHING
        self._remaining = 0  # tokens that the guide still gives the target
        self._target_tokens = 0
        self._held_since: float | None = None
        self._held_seconds = 0.0
        self.takeover: Takeover | None = None
        self.takeovers: Counter[str] = Counter()
        self.score_due = self.alone = False
        self.failure: TargetFailure | None = None

    # What the driver asks

    @property
    def timeout(self) -> float | None:
        return None if self.takeover is None else self._target.model.settings.patience

    def asleep_until(self) -> int:
        """The answer is the small model's, and so is all that it writes alone."""
        busy = self.takeover is not None or self._held or self._backlog or self._may_hold
        return 0 if busy else NEVER

    def before_segment(self, driver: Driver) -> list[Event]:
        """What the server writes before a takeover."""
        events = self._begin(driver)
        if self._prompt.token_ids:
            events += driver.state.write(self._prompt)
            self._prompt = NOTHING
        return events

    async def hand_over(self, driver: Driver) -> list[Event]:
        state = self._state
        return list(state.hand_to(state.own if self.takeover is None else await self._target.transcript()))

    def engine_limits(self, driver: Driver, changes: dict[str, Any]) -> dict[str, Any]:
        if self.takeover is None:
            return changes
        most = self._room(driver)
        still = max(0, self._state.sampling.min_tokens - self._state.position)
        return {**changes, "max_tokens": most, "min_tokens": min(most, still)}

    def first_delta(self, prompt: Prompt, delta: Delta) -> None:
        self._target.segment_began(self._state, prompt, delta, by_target=self.takeover is not None)

    def receive(self, driver: Driver, delta: Delta) -> list[Event]:
        if self.takeover is not None:
            events = self._target_wrote(driver, delta)
        else:
            self._backlog.extend(single(delta))
            events = self._work_off(driver)
        return events + driver.report()

    async def score(self, driver: Driver) -> list[Event]:
        """The target scores what is held. Where it cannot, that stands."""
        self.score_due = False
        score: float | None = None
        try:
            score = await self._target.score(self._state, self._held, self._interrupt)
        except EngineError as error:
            self._give_up(error)
        ruling: Ruling = "keep" if score is None else self._guide.scored(score)
        return self._rule(driver, ruling) + self._work_off(driver)

    def segment_ended(self, seconds: float) -> None:
        self._target.spent(self._state, seconds)

    def failed(self, driver: Driver, error: EngineError | TimeoutError) -> list[Event]:
        """A request failed. Raises the error unless the small model can go on alone; what was held back comes out where
        the reply ends."""
        if isinstance(error, TimeoutError):
            error = TargetSlow(f"no token within {self.timeout} s")
        if self.takeover is not None:
            self._give_up(error)
            return []
        if isinstance(error, PromptTooLong) and self._state.position:
            return list(self._state.end("length"))  # what the target wrote takes more tokens of this vocabulary
        raise error

    def finished(self) -> TargetUse:
        """The reply has ended: what is still held is thrown away."""
        self._stop_holding()
        self._discard(self._held)
        self._discard(self._backlog)
        return self._target.use(self._state, self.takeovers, self._target_tokens, self._held_seconds, self.failure)

    # The small model's turn

    @property
    def _thinking(self) -> bool:
        return self._state.parser.section in self._sections

    @property
    def _may_hold(self) -> bool:
        undecided = self._state.parser.section in UNDECIDED
        return not self.alone and self._state.finish is None and (self._thinking or undecided)

    def _work_off(self, driver: Driver) -> list[Event]:
        events: list[Event] = []
        while self._backlog and not (self._state.over or self.score_due):
            events += self._small_wrote(driver, self._backlog.popleft())
        if self._state.over:
            self._discard(self._backlog)
        return events

    def _small_wrote(self, driver: Driver, token: Delta) -> list[Event]:
        if self.alone or not self._thinking or self._wished:
            self._stop_holding()
            self._held.append(token)
            events = self._release(driver)
            return events if self._state.over else events + self._begin(driver)
        closes = self._state.parser.closes(token.token_ids[0])
        piece, last = "" if closes else token.text, closes or token.finish is not None
        if not self._guide.holding:
            events = driver.admit(token)
            return events if self._state.over else events + self._rule(driver, self._guide.small(piece, last))
        if not self._held:
            self._held_since = time.perf_counter()
        self._held.append(token)
        return self._rule(driver, self._guide.small(piece, last))

    def _rule(self, driver: Driver, ruling: Ruling | None) -> list[Event]:
        if ruling is None:
            return []
        if ruling == "score":
            self.score_due = True
            return []
        events = [] if ruling != "keep" and ruling.replaces else self._release(driver)
        if ruling == "keep" or self._state.over:
            return events
        if not self._take_over(driver, ruling):
            self._guide.refused(ruling)
            return events + self._release(driver)
        self._stop_holding()
        self._discard(self._held)
        return events

    def _release(self, driver: Driver) -> list[Event]:
        """What is held stands."""
        events: list[Event] = []
        self._stop_holding()
        for number, token in enumerate(self._held):
            if self._state.over:
                self._state.discarded_tokens += len(self._held) - number
                break
            events += driver.admit(token)
        self._held = []
        return events

    def _discard(self, tokens: list[Delta] | deque[Delta]) -> None:
        self._state.discarded_tokens += len(tokens)
        tokens.clear()

    def _stop_holding(self) -> None:
        if self._held and self._held_since is not None:
            self._held_seconds += time.perf_counter() - self._held_since
        self._held_since = None

    # The target's turn

    def _begin(self, driver: Driver) -> list[Event]:
        """Where the thinking has just begun, it may be the target's to begin."""
        if self._opened or not self._thinking:
            return []
        self._opened = True
        return self._rule(driver, self._guide.opening())

    def _room(self, driver: Driver) -> int:
        """Tokens that the target may write now: of its turn, of the reply's limits, and of its own."""
        own = self._max_target_tokens - self._target_tokens
        return min(self._remaining, driver.limits.room(self._state), own)

    def _take_over(self, driver: Driver, takeover: Takeover) -> bool:
        """Begins the target's turn, if it has room and is there."""
        prompt = self._target.model.excess_prompt if takeover.kind == "excess" else NOTHING
        self._remaining = takeover.tokens
        if self.alone or self._wished or self._room(driver) < 1:
            return False
        if driver.limits.room(self._state) <= len(prompt.token_ids):
            return False
        if not self._target.may_be_asked():
            self.alone, self.failure = True, "down"
            return False
        self._prompt, self.takeover, self._wrote = prompt, takeover, False
        self._state.segment_over = True
        self.takeovers[takeover.kind] += 1
        self._guide.began(takeover)
        return True

    def _end_turn(self) -> None:
        if self.takeover is not None:
            self.takeover, self._state.segment_over = None, True
            self._guide.ended(self._wrote)

    def _target_wrote(self, driver: Driver, delta: Delta) -> list[Event]:
        state, events = self._state, list[Event]()
        kept = self._without_end(delta)
        tokens = [*single(kept)] if kept.token_ids else []
        for number, token in enumerate(tokens):
            events += driver.admit(token)
            self._wrote = True
            self._target_tokens += 1
            self._remaining += self._guide.target(token.text) - 1
            if state.over or not self._thinking or self._remaining < 1:
                state.discarded_tokens += len(tokens) - number - 1
                self._end_turn()
                return events
        if delta.finish == "stop" or (delta.finish == "length" and self._room(driver) < 1):
            self._end_turn()
        return events

    def _without_end(self, delta: Delta) -> Delta:
        """What ends the target's request does not end the reply, unless it would end it whoever wrote it."""
        if delta.finish is None or delta.stopped_by is not None:
            return delta
        ended_by_itself = delta.finish == "stop"
        if ended_by_itself and "reasoning" not in self._sections:
            return delta  # the answer is over
        count = len(delta.token_ids) - ended_by_itself
        logprobs = delta.logprobs and delta.logprobs[:count]
        return replace(
            delta, token_ids=delta.token_ids[:count], pieces=delta.pieces[:count], logprobs=logprobs, finish=None
        )

    # Both

    @property
    def _wished(self) -> bool:
        return self._interrupt.wish is not None

    def _give_up(self, error: EngineError) -> None:
        """The target cannot be reached: the small model goes on behind what stands."""
        self.alone, self.failure = True, give_up_on(self._target.model, error)
        self._end_turn()


def thinking_sections(family: ReasoningFormat) -> Sequence[Section]:
    """Where a family thinks. A model without tags for it thinks in its answer."""
    if family.thinking is not None:
        return ("reasoning",)
    return ("answer",) if family.solution is not None else ("start", "answer")
