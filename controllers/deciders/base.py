"""The seam at which it is decided whether a reply thinks, asked only where its mode is `auto`."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pydantic import Field, ValidationInfo, field_validator

from controllers.deciders.answers import Compared
from controllers.deciders.calibration import Calibration
from controllers.generation.deltas import next_item
from controllers.generation.events import Conversation, DeciderFailure, Event, Interrupt
from controllers.generation.prompt import RenderedPrompt
from controllers.generation.route import Route
from controllers.generation.state import ReplyState
from controllers.policy.controls import ChosenBy
from controllers.policy.fold import Policy
from models.config import Section, resolve
from models.engines.base import Prompt, Sampling
from models.formats.reasoning import Mode

if TYPE_CHECKING:
    from controllers.deciders.drafts import Draft

THRESHOLD = 0.5
"""The probability from which on a reply thinks, where neither request nor route names one."""


@dataclass(slots=True)
class Spent:
    """Tokens that were generated for a decision and are no part of the reply."""

    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What a decider may look at, and do. `prompt` is the conversation rendered with the mode left open.

    `begin` begins a reply in a mode, by the route's own model alone: its state, and its events, which nobody has seen.
    `heard` says that the decider is at work: its patience begins anew. `calibration` is the decider's own.
    """

    route: Route
    request: Conversation
    policy: Policy
    sampling: Sampling
    prompt: RenderedPrompt
    interrupt: Interrupt
    begin: Callable[[Mode, Sampling], Awaitable[tuple[ReplyState, AsyncGenerator[Event, None]]]]
    heard: Callable[[], None] = lambda: None
    calibration: Calibration = field(default_factory=Calibration)
    spent: Spent = field(default_factory=Spent)

    @property
    def threshold(self) -> float:
        """Request over route over calibration; towards 1 where the engine is slow and the route says so."""
        named = (self.policy.think_threshold, self.calibration.threshold)
        threshold = next((threshold for threshold in named if threshold is not None), THRESHOLD)
        return threshold + (1.0 - threshold) * self.route.defaults.load.shift * self.route.pace.pressure

    def verdict(self, chosen_by: ChosenBy, score: float) -> "ModeVerdict":
        """Think where the probability that the score stands for reaches the threshold."""
        p_think, threshold = self.calibration.p_think(score), self.threshold
        mode: Mode = "think" if p_think >= threshold else "no_think"
        return ModeVerdict(mode, chosen_by, p_think, threshold, score if self.calibration.points else None)


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """A decider's answer.

    `p_think` is the probability behind it and `threshold` what it was held against, where there are such; `score` is
    what the decider found, where a calibration made the probability of it. `failure` says why the decider could not
    answer; the reply then thinks. `request` is the conversation as the reply is to read it, where the decider adds to
    it. `draft` is the reply, where it has begun already.
    """

    mode: Mode
    chosen_by: ChosenBy
    p_think: float | None = None
    threshold: float | None = None
    score: float | None = None
    failure: DeciderFailure | None = None
    request: Conversation | None = None
    draft: "Draft | None" = None


class ModeDecider(Protocol):
    """Says whether a reply thinks. None leaves it to the model's own first token. Raises what the engine raises."""

    async def decide(self, question: Question) -> ModeVerdict | None: ...


class DeciderConfig(Section):
    """`[routes.NAME.auto]`. A decider that is silent for `patience` seconds has failed: the reply thinks. `calibration`
    is the file that says what its scores are worth; `allow_stale` takes it even if it was made for something else. At
    `shadow_rate` a direct reply is thought through as well, unseen, and the two answers are compared by
    `shadow_compare`."""

    decider: str
    patience: float = Field(default=2.0, gt=0)
    calibration: str = ""
    allow_stale: bool = False
    shadow_rate: float = Field(default=0.0, ge=0, le=1)
    shadow_compare: Compared = "text"

    @field_validator("calibration")
    @classmethod
    def _readable(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info, must_exist=True) if value else ""

    def calibrated(self) -> Calibration:
        """Raises `ValueError` where the file holds nothing for this decider."""
        return Calibration.read(self.calibration, self.decider) if self.calibration else Calibration()


async def probability(question: Question, prompt: RenderedPrompt, chosen: int, other: int) -> float | None:
    """P(chosen) against P(other) as the next token, at temperature 1. None where the client cancels before that."""
    route = question.route
    sampling = Sampling(
        max_tokens=1,
        temperature=1.0,
        allowed_token_ids=(chosen, other),
        logprob_token_ids=(chosen, other),
        logprobs=0,
        priority=question.sampling.priority,
    )
    salt = question.request.cache_salt
    request = Prompt(prompt.token_ids, route.adapter, cache_salt=salt, image_inputs=prompt.image_inputs)
    async with aclosing(route.engine.generate(request, sampling)) as stream:
        while (delta := await next_item(stream, question.interrupt)) is not None:
            question.spent.tokens += len(delta.token_ids)
            if delta.logprobs:
                known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                return 1.0 / (1.0 + math.exp(known[other] - known[chosen]))
    if question.interrupt.cancelled:
        return None
    raise RuntimeError("the engine returned no log-probabilities")
