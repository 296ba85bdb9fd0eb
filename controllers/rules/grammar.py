"""An answer under a grammar: a segment of its own, which begins where the thinking ends.

Nothing of the answer is taken before it: the token that would begin it too soon is thrown away, and so is the end of a
reply whose model stopped in mid-thought, for the client relies on an answer.
"""

from typing import Any

from controllers.generation.state import Reply, forgets_penalties
from controllers.policy.controls import PolicyError
from controllers.route import Forced
from models.engines.base import Delta, Grammar
from models.formats.chunks import Chunk


class ShapedAnswer:
    """Of one reply. `awaited` says that the grammar is still to come."""

    __slots__ = ("_grammar", "_reply")

    def __init__(self, reply: Reply) -> None:
        """Raises `PolicyError` where the answer's beginning could fall within a token."""
        self._reply = reply
        self._grammar = _grammar(reply)

    @property
    def awaited(self) -> bool:
        return self._grammar is not None

    @property
    def begins(self) -> bool:
        """Whether the last token has led to the answer, and the grammar is not yet on."""
        return self._grammar is not None and self._reply.parser.section == "answer" and self._reply.finish is None

    def settings(self) -> dict[str, Any]:
        """The grammar, where the answer begins with the segment that is asked for now."""
        reply, grammar = self._reply, self._grammar
        if grammar is None:
            return {}
        if reply.parser.section == "answer" or reply.route.answers_at_once:
            self._grammar = None
            return {"grammar": grammar}
        if penalty := forgets_penalties(reply.sampling):
            raise PolicyError(f"{penalty}: cannot be kept up from the thinking to an answer with a format", penalty)
        return {}

    def comes_too_soon(self, step: Delta) -> bool:
        """Whether this token ends the reply, or begins the answer, before the grammar is there."""
        if self._grammar is None:
            return False
        if step.finish == "stop" and step.stopped_by is None:
            return True
        parser = self._reply.parser
        return parser.section == "start" and bool(step.token_ids) and not parser.opens(step.token_ids[0])

    def lead(self) -> list[Chunk]:
        """Writes what is missing before the answer: the closing text, or the rest of it behind the model's own tag."""
        reply, chunks = self._reply, list[Chunk]()
        closing = reply.route.closing
        if reply.parser.section == "reasoning":
            chunks = reply.write(closing)
        elif reply.parser.section in ("start", "budget"):
            reply.parser.section = "answer"
        elif reply.route.family.scope == "thinking" and reply.turns[-1].token_ids[-1:] == list(closing.token_ids[:1]):
            chunks = reply.write(Forced(closing.token_ids[1:], closing.pieces[1:]))
        return chunks + reply.end("length") if reply.position >= reply.most else chunks


def _grammar(reply: Reply) -> Grammar | None:
    """The grammar that the answer is to have. One that nobody relies on is left out where it cannot be had."""
    shape, tags = reply.shape, reply.route.tags
    if shape is None or shape.grammar is None:
        return None
    if not tags.by_text and (shape.required or forgets_penalties(reply.sampling) is None):
        return shape.grammar
    if shape.required:
        raise PolicyError("response_format: the thinking tags of this route's model are no tokens", "response_format")
    return None
