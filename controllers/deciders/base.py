"""The seam at which it is decided whether a reply thinks, asked only where its mode is `auto`."""

from dataclasses import dataclass
from typing import Protocol

from controllers.generation.events import Conversation, Interrupt
from controllers.generation.prompt import RenderedPrompt
from controllers.generation.route import Route
from controllers.policy.controls import ChosenBy
from controllers.policy.fold import Policy
from models.engines.base import Sampling
from models.formats.reasoning import Mode


@dataclass(frozen=True, slots=True)
class Question:
    """What a decider may look at. `prompt` is the conversation rendered with the mode left open."""

    route: Route
    request: Conversation
    policy: Policy
    sampling: Sampling
    prompt: RenderedPrompt
    interrupt: Interrupt


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """A decider's answer. `p_think` is the probability or score behind it, where there is one."""

    mode: Mode
    chosen_by: ChosenBy
    p_think: float | None = None


class ModeDecider(Protocol):
    """Says whether a reply thinks. None leaves it to the model's own first token. Raises what the engine raises."""

    async def decide(self, question: Question) -> ModeVerdict | None: ...
