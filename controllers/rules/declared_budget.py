"""The field in which a model declares its own budget, while the model fills it."""

from collections.abc import Sequence

from controllers.generation.parser import UNDECIDED
from controllers.generation.state import Reply
from controllers.rules.budget import declared_budget
from models.formats.chunks import Chunk


class BudgetField:
    """Of one reply. `declared` is the model's own budget, None where it declared none, or has not yet.

    What comes before the solution is short. Where tokens are reserved for an answer (`bounded`), a model that does not
    come to its solution within as many tokens as the longest number takes is brought there.
    """

    __slots__ = ("_reply", "_text", "bounded", "declared")

    def __init__(self, reply: Reply, *, bounded: bool) -> None:
        self._reply = reply
        self._text = ""
        self.bounded = bounded and reply.route.family.budget is not None
        self.declared: int | None = None

    @property
    def overfull(self) -> bool:
        reply = self._reply
        undecided = reply.parser.section in UNDECIDED and reply.finish is None
        return self.bounded and undecided and reply.position >= reply.route.longest_field

    def saw(self, chunks: Sequence[Chunk]) -> None:
        self._text += "".join(chunk.text for chunk in chunks if chunk.kind == "budget")

    def closed(self) -> None:
        """The solution has begun."""
        self.declared = declared_budget(self._text)
