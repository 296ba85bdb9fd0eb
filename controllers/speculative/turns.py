"""Two models at one reply: whose turn it is, and what of the small model's text stands.

No engine is asked here: deltas go in, chunks come out. `speculative.py` asks the engines.
"""

import time
from collections import Counter, deque

from controllers.generation.deltas import single
from controllers.generation.events import Interrupt, Progress, TargetFailure
from controllers.generation.state import Reply
from controllers.policy.fold import Policy
from controllers.route import Forced, TargetModel
from controllers.rules.budget import NEVER
from controllers.rules.limits import Watcher
from controllers.speculative.takeovers import Ruling, Takeover
from models.engines.base import Delta
from models.formats.chunks import Chunk
from models.formats.families import Family, Section

Said = list[Chunk | Progress]
NOTHING = Forced()


class Duet:
    """Says who writes next and takes what they write.

    `turn` is the takeover under way, None while the small model writes. `handover`: the running request is to be
    closed. `unscored`: what is held waits for the target's score. `alone`: the target is not asked again.
    """

    __slots__ = (
        "_backlog",
        "_guide",
        "_held_since",
        "_interrupt",
        "_left",
        "_opened",
        "_prompt",
        "_reply",
        "_sections",
        "_target",
        "_turn_over",
        "_watcher",
        "_wrote",
        "alone",
        "failure",
        "held",
        "held_seconds",
        "most_target_tokens",
        "takeovers",
        "target_tokens",
        "turn",
        "unscored",
    )

    def __init__(
        self, reply: Reply, watcher: Watcher, target: TargetModel, policy: Policy, interrupt: Interrupt | None
    ) -> None:
        lengths = policy.lengths or target.settings.lengths
        self._reply = reply
        self._watcher = watcher
        self._target = target
        self._guide = target.settings.guide(lengths)
        self._interrupt = interrupt
        self._sections = thinking_sections(reply.route.family)
        self._backlog: deque[Delta] = deque()  # behind what waits for a score
        self._opened = self._turn_over = self._wrote = False
        self._prompt = NOTHING
        self._left = 0
        self._held_since = 0.0
        self.most_target_tokens = NEVER if lengths.target_tokens is None else lengths.target_tokens
        self.turn: Takeover | None = None
        self.held: list[Delta] = []
        self.unscored = self.alone = False
        self.failure: TargetFailure | None = None
        self.takeovers: Counter[str] = Counter()
        self.target_tokens = 0
        self.held_seconds = 0.0

    @property
    def handover(self) -> bool:
        return self._turn_over or self._watcher.handover

    @property
    def thinking(self) -> bool:
        return self._reply.parser.section in self._sections

    @property
    def room(self) -> int:
        """Tokens that the target may write now: of its turn, of the reply's limits, and of its own."""
        return min(self._left, self._watcher.room, self.most_target_tokens - self.target_tokens)

    def due(self) -> Said:
        """What comes before the next segment: a stretch's end, a takeover's prompt."""
        reply = self._reply
        said: Said = [*self._watcher.due()]
        if reply.finish is None and reply.position >= reply.most:
            said += reply.end("length")
        self._turn_over = False
        said += self._open()
        if self._prompt.token_ids:
            said += reply.write(self._prompt)
            self._prompt = NOTHING
        return said

    def take(self, delta: Delta) -> Said:
        if self.turn is not None:
            return self._take_over(self.turn, delta)
        if not (self.held or self._backlog or self._may_hold):
            return self._pass_on(delta)
        self._backlog.extend(single(delta))
        return self._work_off()

    def scored(self, score: float | None) -> Said:
        """The target has scored what is held; None: it cannot."""
        self.unscored = False
        return self._rule("keep" if score is None else self._guide.scored(score)) + self._work_off()

    def failed(self, failure: TargetFailure) -> None:
        """The target cannot be reached: the small model goes on behind what stands."""
        self.alone, self.failure = True, failure
        self._end_turn()

    def close(self) -> None:
        """The reply has ended: what is still held is not said."""
        self._stop_holding()
        self._discard(self.held)
        self._discard(self._backlog)

    # The small model's turn

    @property
    def _may_hold(self) -> bool:
        return not self.alone and (self.thinking or self._watcher.undecided)

    def _work_off(self) -> Said:
        said: Said = []
        while self._backlog and not (self._ended or self.unscored):
            said += self._step(self._backlog.popleft())
        return said

    def _step(self, step: Delta) -> Said:
        """One token of the small model's."""
        if self.alone or not self.thinking or self._wished:
            said = self._release() + ([] if self._ended else self._pass_on(step))
            return said if self._ended else said + self._open()
        closes = self._reply.parser.closes(step.token_ids[0])
        piece, last = "" if closes else step.text, closes or step.finish is not None
        if not self._guide.holding:
            said = self._pass_on(step)
            return said if self._ended else said + self._rule(self._guide.small(piece, last))
        if not self.held:
            self._held_since = time.perf_counter()
        self.held.append(step)
        return self._rule(self._guide.small(piece, last))

    def _rule(self, ruling: Ruling | None) -> Said:
        if ruling is None:
            return []
        if ruling == "score":
            self.unscored = True
            return []
        said: Said = [] if ruling != "keep" and ruling.replaces else self._release()
        if ruling == "keep" or self._ended:
            return said
        if not self._can(ruling):
            self._guide.refused(ruling)
            return said + self._release()
        self._stop_holding()
        self._discard(self.held)
        self._begin_turn(ruling)
        return said

    def _release(self) -> Said:
        """What is held stands."""
        said: Said = []
        self._stop_holding()
        for number, step in enumerate(self.held):
            if self._ended:
                self._reply.discarded_tokens += len(self.held) - number
                break
            said += self._pass_on(step)
        self.held = []
        return said

    def _discard(self, deltas: list[Delta] | deque[Delta]) -> None:
        self._reply.discarded_tokens += len(deltas)
        deltas.clear()

    def _stop_holding(self) -> None:
        if self.held:
            self.held_seconds += time.perf_counter() - self._held_since

    # The target's turn

    def _open(self) -> Said:
        """The thinking has just begun: it may be the target's to begin."""
        if self._opened or not self.thinking:
            return []
        self._opened = True
        return self._rule(self._guide.opening())

    def _can(self, takeover: Takeover) -> bool:
        """Whether the target may write this, and is there."""
        prompt = self._target.excess_prompt if takeover.kind == "excess" else NOTHING
        self._left = takeover.tokens
        if self.alone or self._wished or self.room < 1 or self._watcher.room <= len(prompt.token_ids):
            return False
        if self._target.outage.closed(time.monotonic()):
            self.alone, self.failure = True, "down"
            return False
        self._prompt = prompt
        return True

    def _begin_turn(self, takeover: Takeover) -> None:
        self.turn = takeover
        self._turn_over, self._wrote = True, False
        self.takeovers[takeover.kind] += 1
        self._guide.began(takeover)

    def _end_turn(self) -> None:
        if self.turn is not None:
            self.turn, self._turn_over = None, True
            self._guide.ended(self._wrote)

    def _take_over(self, takeover: Takeover, delta: Delta) -> Said:
        said: Said = []
        kept = self._without_end(delta)
        steps = [*single(kept)] if kept.token_ids else []
        for number, step in enumerate(steps):
            said += self._pass_on(step)
            self._wrote = True
            self.target_tokens += 1
            self._left += self._guide.target(step.text) - 1
            if self._ended or not self.thinking or self._left < 1:
                self._reply.discarded_tokens += len(steps) - number - 1
                self._end_turn()
                return said
        if delta.finish == "stop" or (delta.finish == "length" and self.room < 1):
            self._end_turn()
        return said

    def _without_end(self, delta: Delta) -> Delta:
        """What ends the target's request does not end the reply, unless it would end it whoever wrote it."""
        if delta.finish is None or delta.stopped_by is not None:
            return delta
        ended_by_itself = delta.finish == "stop"
        if ended_by_itself and "reasoning" not in self._sections:
            return delta  # the answer is over
        count = len(delta.token_ids) - ended_by_itself
        logprobs = delta.logprobs and delta.logprobs[:count]
        return Delta(delta.token_ids[:count], delta.pieces[:count], logprobs)

    # Both

    @property
    def _ended(self) -> bool:
        return self._reply.finish is not None or self.handover

    @property
    def _wished(self) -> bool:
        return self._interrupt is not None and self._interrupt.wish is not None

    def _pass_on(self, delta: Delta) -> Said:
        reply, watcher = self._reply, self._watcher
        if reply.position + len(delta.token_ids) < watcher.look_at:
            return [*reply.take(delta)]
        return watcher.look(delta)


def thinking_sections(family: Family) -> tuple[Section, ...]:
    """Where a family thinks. A model without tags for it thinks in its answer."""
    if family.thinking is not None:
        return ("reasoning",)
    return ("answer",) if family.solution is not None else ("start", "answer")
