"""What a controller yields: decisions, chunks of text, and one end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.engine import Finish, PositionLogprobs
from models.families import Mode

Kind = Literal["reasoning", "answer", "control"]
ChosenBy = Literal["client", "route", "model", "threshold"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output. `control` chunks hold tags: token ids that the client is charged for, and no text.

    A token whose text is partly tag and partly text belongs to the chunk that holds its first character of text.
    `logprobs` is aligned with `token_ids`, or None. `forced` tokens were written by the server, not sampled.
    """

    kind: Kind
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...] | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """How much thinking the reply gets, and who said so.

    `p_think` is the model's own probability of thinking, where it was asked for it. `prompt` is what the engine read,
    forced prefix included.
    """

    mode: Mode
    chosen_by: ChosenBy
    prompt: Sequence[int]
    p_think: float | None = None

    def record(self) -> dict[str, Any]:
        """The decision record as clients read it."""
        record: dict[str, Any] = {"mode": self.mode, "chosen_by": self.chosen_by}
        if self.p_think is not None:
            record["p_think"] = round(self.p_think, 6)
        return record


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a reply. Counts are of token ids; tags count as completion, and as neither
    reasoning nor answer."""

    reason: Finish
    stopped_by: str | int | None
    completion_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    cached_tokens: int
    decision: Decision

    @property
    def prompt_tokens(self) -> int:
        return len(self.decision.prompt)

    @property
    def record(self) -> dict[str, Any]:
        return self.decision.record()


Event = Decision | Chunk | Finished


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation that asks for one reply. `messages` and `tools` are JSON values as the client sent them."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    template_kwargs: Mapping[str, Any] | None = None
    continue_final: bool = False
    cache_salt: str | None = None
