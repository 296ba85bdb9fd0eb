"""The seam at which it is decided whether a reply thinks, asked only where its mode is `auto`."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from controllers.generation.events import Conversation, Interrupt
from controllers.generation.prompt import RenderedPrompt
from controllers.generation.route import Route
from controllers.policy.controls import ChosenBy
from controllers.policy.fold import Policy
from models.config import Section
from models.engines.base import Sampling
from models.formats.reasoning import Mode

THRESHOLD = 0.5
"""The probability from which on a reply thinks, where neither request nor route names one."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a decider may look at. `prompt` is the conversation rendered with the mode left open."""

    route: Route
    request: Conversation
    policy: Policy
    sampling: Sampling
    prompt: RenderedPrompt
    interrupt: Interrupt

    @property
    def threshold(self) -> float:
        threshold = self.policy.think_threshold
        return THRESHOLD if threshold is None else threshold


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """A decider's answer.

    `p_think` is the probability behind it and `threshold` what it was held against, where there are such. `tokens` were
    generated for the decision alone. `failure` says why the decider could not answer; the reply then thinks. `request`
    is the conversation as the reply is to read it, where the decider adds to it.
    """

    mode: Mode
    chosen_by: ChosenBy
    p_think: float | None = None
    threshold: float | None = None
    tokens: int = 0
    failure: str | None = None
    request: Conversation | None = None


class ModeDecider(Protocol):
    """Says whether a reply thinks. None leaves it to the model's own first token. Raises what the engine raises."""

    async def decide(self, question: Question) -> ModeVerdict | None: ...


class DeciderConfig(Section):
    """`[routes.NAME.auto]`. A decider that is silent for `patience` seconds has failed: the reply thinks."""

    decider: str
    patience: float = Field(default=2.0, gt=0)


def by_probability(chosen_by: ChosenBy, p_think: float, question: Question, tokens: int) -> ModeVerdict:
    """Think where the probability reaches the threshold."""
    mode: Mode = "think" if p_think >= question.threshold else "no_think"
    return ModeVerdict(mode, chosen_by, p_think, question.threshold, tokens)
