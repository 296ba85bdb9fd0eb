"""What an algorithm hands to the trainer: rows to learn, or a policy's parts. `training.runs` trains with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from models.engines.base import Tokenizer
from training.data.questions import QuestionSource, TrainingQuestion

if TYPE_CHECKING:
    from torch import Tensor

TokenAdvantages = Callable[["Tensor", "Tensor"], "Tensor"]
"""(G, N) rewards and the (G, N, T) reply mask to (G, N, T) advantages: G questions, N replies to each, T tokens."""
LogMetric = Callable[[str, float], None]


class AnsweredReply(Protocol):
    """What a reply says, however its format is read."""

    @property
    def answer(self) -> str: ...
    @property
    def complete(self) -> bool: ...
    @property
    def tokens(self) -> int: ...


Sampler = Callable[[Any, Sequence[Sequence[int]]], list[list[int]]]
"""The model as it now is and prompts to a sampled reply to each, its end of turn included, all in token ids."""


@dataclass(frozen=True, slots=True)
class Material:
    """What an algorithm makes its rows or parts from. `questions` are those of a policy's whole run, in order."""

    tokenizer: Tokenizer
    source: QuestionSource
    questions: Sequence[TrainingQuestion] = ()


R = TypeVar("R", bound=AnsweredReply)


@dataclass(frozen=True, slots=True)
class CheckedReply(Generic[R]):
    """A reply to a question, and what its answer is worth: 0 where the reply is not complete."""

    question: TrainingQuestion
    reply: R
    score: float


Reward = Callable[[Sequence[CheckedReply[R]], float, LogMetric], list[float]]
"""Checked replies, and how much of the run is over (0 to 1), to what each reply earns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParts(Generic[R]):
    """An algorithm's own part of a step: what is asked, how a reply is read, what it earns, what each token gains.

    Equal shares of every group begin with each of `prefixes`. A prefix was not chosen by the policy, so that nothing is
    learned from its tokens, but from the one at `mode_position` if that is given. Without `advantages` they are TRL's.
    `messages` are a prompt's, where they are not the question's own.

    `mode_ratio` is the importance ratio of the forced mode token: "on_policy" is 1, "half" takes 1/2 as its old
    probability. `settled` is the probability at which a mode token is pushed no further (1: never).
    """

    source: QuestionSource
    questions: Sequence[TrainingQuestion]
    render: Callable[[Sequence[Mapping[str, Any]]], list[int]]
    read: Callable[[TrainingQuestion, Sequence[int]], R]
    reward: Reward[R]
    messages: Callable[[TrainingQuestion], list[Mapping[str, Any]]] | None = None
    prefixes: Sequence[Sequence[int]] = ((),)
    mode_position: int | None = None
    advantages: TokenAdvantages | None = None
    mode_ratio: Literal["on_policy", "half"] = "on_policy"
    settled: float = 1.0
