"""What a controller yields: decisions, chunks of text, progress, and one end."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from controllers.generation.answer_format import AnswerFormat
from controllers.policy.controls import ChosenBy, Cut, CutBy
from models.engines.base import Finish
from models.formats.chunks import Chunk
from models.formats.reasoning import Mode, Scope

TargetFailure = Literal["dead", "busy", "slow", "full", "error", "down"]
"""Why a target model was not there: its engine is dead, its queue or its context full, it was silent for too long, it
failed in another way, or it failed a moment ago and is left alone for a while."""


DeciderFailure = Literal["busy", "slow", "error"]
"""Why a decider could not choose: the engine's queue was full, it was silent for too long, it failed in another way."""


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A reply's budget as it stands, in tokens of its scope.

    `requested` is what the client asked for (-1: no limit), `declared` what the model gave itself, `enforced` what the
    server holds the reply to: after caps, and after what the answer's reserve leaves of `max_tokens`.
    """

    scope: Scope
    requested: int | None
    declared: int | None
    enforced: int | None
    used: int = 0


@dataclass(frozen=True, slots=True)
class TargetUse:
    """What the target model did for a reply.

    `takeovers` counts them by kind, `target_tokens` what it wrote of the reply, `scores` the steps that it scored.
    `held_seconds` is for how long text was held back in all. `seconds` is how long each model's requests took. Behind
    each of `hand_overs` an engine read `reread_tokens` in sum, of which it had `cached_tokens`. `seams` are texts that
    one of the vocabularies could not take over to the character.
    """

    takeovers: Mapping[str, int]
    target_tokens: int
    completion_tokens: int
    scores: int
    held_seconds: float
    seconds: Mapping[str, float]
    hand_overs: int
    reread_tokens: int
    cached_tokens: int
    seams: int
    failure: TargetFailure | None

    @property
    def share(self) -> float:
        """Of the reply's tokens, those from the target."""
        return self.target_tokens / self.completion_tokens if self.completion_tokens else 0.0

    def record(self) -> dict[str, Any]:
        return {
            "takeovers": dict(self.takeovers),
            "target_tokens": self.target_tokens,
            "target_share": round(self.share, 6),
            "target_failure": self.failure,
            "speculative": {
                "scores": self.scores,
                "held_seconds": round(self.held_seconds, 6),
                "seconds": {name: round(seconds, 6) for name, seconds in self.seconds.items()},
                "hand_overs": self.hand_overs,
                "reread_tokens": self.reread_tokens,
                "cached_tokens": self.cached_tokens,
                "seams": self.seams,
            },
        }


@dataclass(frozen=True, slots=True)
class ExitUse:
    """What an early exit did for a reply, whether it ended the thought or not.

    `looks` counts the ends of sentences, or the trials; `best` is the smallest margin, or the surest trial, of them.
    Trials took `probe_tokens` tokens beside the reply. They read `prompt_tokens`, of which the engine had
    `cached_tokens`; `failed` of them got no reply.
    """

    rule: str
    looks: int
    best: float | None
    probe_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failed: int = 0

    def record(self) -> dict[str, Any]:
        best = None if self.best is None or math.isinf(self.best) else round(self.best, 6)
        return {**asdict(self), "best": best}


@dataclass(frozen=True, slots=True)
class Decision:
    """How much thinking the reply gets, and who said so. `notes` are those of the conversation.

    `p_think` is the probability behind a decider's choice and `threshold` what it was held against; `decision_tokens`
    were generated for the choice alone, and `decider_failure` says why a decider could not choose. `score` is what a
    decider found, where its calibration made the probability of it; `held_seconds` is for how long a reply was held
    back that began before the choice. `prompt` is what the engine read, forced prefix included. `seconds_to_answer` is
    an estimate from the engine's present pace.
    """

    mode: Mode
    chosen_by: ChosenBy
    prompt: Sequence[int]
    p_think: float | None = None
    budget: BudgetUse | None = None
    seconds_to_answer: float | None = None
    threshold: float | None = None
    decision_tokens: int = 0
    decider_failure: DeciderFailure | None = None
    score: float | None = None
    held_seconds: float | None = None
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The decision record as clients read it."""
        known = {
            "notes": list(self.notes) or None,
            "p_think": _rounded(self.p_think),
            "score": _rounded(self.score),
            "threshold": self.threshold,
            "decision_tokens": self.decision_tokens or None,
            "decider_failure": self.decider_failure,
            "held_seconds": _rounded(self.held_seconds),
        }
        told = {name: value for name, value in known.items() if value is not None}
        budget = _budget_record(self.budget, self.seconds_to_answer)
        return {"mode": self.mode, "chosen_by": self.chosen_by, **told, **budget}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reply with a budget has come; sent now and then while it runs."""

    budget: BudgetUse
    seconds_to_answer: float | None

    def record(self) -> dict[str, Any]:
        return _budget_record(self.budget, self.seconds_to_answer)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a reply. Counts are of token ids; tags count as completion, and as neither reasoning nor answer.

    The tokens of tool calls are the answer's; `calls` is the number of calls. `cut` says how the server ended the
    budget's scope, if it did, and `cut_by` for whose sake. `segments` is the number of engine requests;
    `discarded_tokens` were generated and thrown away: the client neither saw nor pays for them. `cancelled`: a client
    asked for the end.
    `more` is what a controller adds to the decision record.
    """

    reason: Finish
    stopped_by: str | int | None
    completion_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    cached_tokens: int
    decision: Decision
    budget: BudgetUse | None = None
    cut: Cut | None = None
    cut_by: CutBy | None = None
    segments: int = 1
    discarded_tokens: int = 0
    calls: int = 0
    target: TargetUse | None = None
    early_exit: ExitUse | None = None
    cancelled: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return len(self.decision.prompt)

    @property
    def record(self) -> dict[str, Any]:
        record = replace(self.decision, budget=self.budget, seconds_to_answer=None).record()
        several = self.budget is not None or self.cut is not None or self.target is not None
        several = several or self.decision.decision_tokens > 0
        if self.budget is not None or self.cut is not None:
            record |= {"cut": self.cut, "cut_by": self.cut_by}
        if self.target is not None:
            record |= self.target.record()
        if self.early_exit is not None:
            record["exit"] = self.early_exit.record()
        if self.cancelled:
            record["cancelled"] = True
        if several:
            record |= {"segments": self.segments, "discarded_tokens": self.discarded_tokens}
        return {**record, **self.more}


@dataclass(frozen=True, slots=True)
class Working:
    """Something has happened that a client who waits may like to know; the reply itself has not begun."""

    record: Mapping[str, Any]


Event = Decision | Chunk | Progress | Working | Finished


def noted(event: Event, notes: tuple[str, ...]) -> Event:
    """The event with the conversation's notes in its record."""
    if notes and isinstance(event, Decision):
        return replace(event, notes=notes)
    if notes and isinstance(event, Finished):
        return replace(event, decision=replace(event.decision, notes=notes))
    return event


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _budget_record(budget: BudgetUse | None, seconds_to_answer: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {} if budget is None else {"budget": asdict(budget)}
    if seconds_to_answer is not None:
        record["seconds_to_answer"] = round(seconds_to_answer, 3)
    return record


class Interrupt:
    """What a client may still ask of a reply that runs: to answer now, or to end. Replies listen; one serves all
    choices of a request. `refusal` says why a reply cannot be made to answer early, if it cannot. `waiting` holds the
    tasks that wait for an engine just now: a cancellation wakes them, and takes out those that it has woken."""

    def __init__(self) -> None:
        self.wish: Literal["answer", "cancel"] | None = None
        self.refusal: str | None = None
        self.waiting: set[asyncio.Task[Any]] = set()
        self._listeners: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self.wish == "cancel"

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def ask(self, wish: Literal["answer", "cancel"]) -> None:
        """The last wish counts, but nothing takes back a cancellation."""
        if self.wish != "cancel":
            self.wish = wish
        for listener in self._listeners:
            listener()
        while self.cancelled and self.waiting:
            self.waiting.pop().cancel()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that asks for one reply. `messages` and `tools` are JSON values as chat templates read them.
    `notes` say what of the request the reply will not keep to. `arrived` is when it came, by `time.perf_counter`."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    template_kwargs: Mapping[str, Any] | None = None
    continue_final: bool = False
    cache_salt: str | None = None
    interrupt: Interrupt | None = None
    shape: AnswerFormat | None = None
    notes: tuple[str, ...] = ()
    arrived: float = field(default_factory=time.perf_counter, compare=False)

    @property
    def characters(self) -> int:
        """How much text its template is given, roughly."""
        return _characters(self.messages) + _characters(self.tools)

    @property
    def cancelled(self) -> bool:
        return self.interrupt is not None and self.interrupt.wish == "cancel"


def _characters(value: Any) -> int:
    """Of all strings in a JSON value."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return sum(_characters(part) for part in parts)
