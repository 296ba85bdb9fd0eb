"""Chunks: the pieces into which a reply is parsed. Everything above the parser reads these."""

from dataclasses import dataclass
from typing import Literal

from models.engines.base import PositionLogprobs

Kind = Literal["reasoning", "answer", "tool", "budget", "control"]


@dataclass(frozen=True, slots=True)
class CallPart:
    """The tool call that a chunk belongs to: its place among the answer's calls, and its id and name with its first
    chunk."""

    number: int
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output. `control` chunks hold tags: token ids that the client is charged for, and no text. The text of
    `tool` chunks is the JSON of the arguments of `call`; one without a `call` holds what stands around them.

    A token whose text is partly tag and partly text belongs to the chunk that holds its first character of text.
    `logprobs` is aligned with `token_ids`, or None. `forced` tokens were written by the server, not sampled; those of a
    `target` chunk by the target model, in its vocabulary.
    """

    kind: Kind
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...] | None = None
    forced: bool = False
    call: CallPart | None = None
    target: bool = False
