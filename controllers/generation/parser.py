"""The state machine from token ids to chunks. Pure; serving and training use the same one.

A reply has up to five sections: `start` (nothing decided), `budget` (the model's own budget field), `reasoning`,
`answer`, and `after` (behind a closed solution: answer text, should there be any). Tags lead from one to the next;
`models.formats.families.compile_tags` says which tag leads where, and a tag that leads nowhere from the present
section is text. A tag that is one token of the vocabulary is known by its id alone, so the same characters in
ordinary tokens are text. A tag that is no token is known by its characters, however they are split over tokens: text
that may still become a tag is held back, never more than that.

Each token is worked on by itself, so any way of cutting the stream gives the same chunks.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from models.engines.base import PositionLogprobs
from models.formats.chunks import Chunk, Kind
from models.formats.families import Section, Tag, Tags

UNDECIDED = ("start", "budget")
"""Sections in which nothing has been said yet of what the client wants to read."""


@dataclass(slots=True)
class _Token:
    """A token of which some characters are still held. `left` counts them; `placed` once it belongs to a chunk."""

    token_id: int
    logprobs: PositionLogprobs | None
    left: int
    placed: bool = False


class ThinkingParser:
    """Cuts one reply into budget, reasoning, answer and control chunks.

    `section` is where the reply stands; a family whose template opens the thinking starts in `reasoning`. A prefix
    that the server forces is fed like any other tokens, so that machine and prompt cannot disagree.
    """

    __slots__ = ("_by_id", "_by_text", "_fresh", "_held", "_pending", "section")

    def __init__(self, tags: Tags) -> None:
        self.section: Section = tags.begins
        self._by_id = tags.by_id
        self._by_text = tags.by_text
        self._fresh = False  # just behind a tag: newlines here are layout, not text
        self._held = ""
        self._pending: deque[_Token] = deque()

    def feed(
        self, token_ids: Sequence[int], pieces: Sequence[str], logprobs: Sequence[PositionLogprobs] | None = None
    ) -> list[Chunk]:
        """Chunks that these tokens complete; `pieces[i]` is the text that became known with `token_ids[i]`."""
        chunks: list[Chunk] = []
        for i, token_id in enumerate(token_ids):
            at = logprobs[i] if logprobs is not None else None
            tag = self._by_id.get(token_id)
            if tag is not None:
                self._tag_token(tag, token_id, at, chunks)
            elif self._by_text:
                self._held += pieces[i]
                self._pending.append(_Token(token_id, at, len(pieces[i])))
                self._resolve(chunks)
            else:
                self._emit(self._enter_text(), pieces[i], (token_id,), (at,), chunks)
        return chunks

    def flush(self) -> list[Chunk]:
        """What was held back for a tag that never came, once the reply has ended."""
        chunks: list[Chunk] = []
        if self._pending:
            self._release(len(self._held), self._enter_text(), chunks)
        return chunks

    def listen(self, tags: Tags) -> list[Chunk]:
        """Another vocabulary speaks from now on. What was held back for a tag is released if tags are tokens there."""
        chunks = self.flush() if self._pending and not tags.by_text else []
        self._by_id, self._by_text = tags.by_id, tags.by_text
        return chunks

    @property
    def pending(self) -> int:
        """Tokens that belong to no chunk yet, because their text may still become a tag."""
        return sum(not token.placed for token in self._pending)

    def closes(self, token_id: int) -> bool:
        """Whether this token is a tag that ends the present section."""
        tag = self._by_id.get(token_id)
        return tag is not None and tag.leads.get(self.section, self.section) != self.section

    def opens(self, token_id: int) -> bool:
        """Whether this token is a tag that means something where the reply stands."""
        tag = self._by_id.get(token_id)
        return tag is not None and self.section in tag.leads

    def _tag_token(self, tag: Tag, token_id: int, at: PositionLogprobs | None, chunks: list[Chunk]) -> None:
        if self._pending:
            self._release(len(self._held), self._enter_text(), chunks)
        if self._enter(tag):
            self._emit("control", "", (token_id,), (at,), chunks)
        else:
            self._emit(self._enter_text(), tag.text, (token_id,), (at,), chunks)

    def _enter(self, tag: Tag) -> bool:
        to = tag.leads.get(self.section)
        if to is None:
            return False
        self._fresh = self._fresh or to != self.section
        self.section = to
        return True

    def _enter_text(self) -> Kind:
        if self.section == "start":
            self.section = "answer"
        return "answer" if self.section == "after" else self.section

    def _resolve(self, chunks: list[Chunk]) -> None:
        """Releases all held text that cannot be part of a tag any more."""
        while True:
            active = [tag for tag in self._by_text if self.section in tag.leads]
            found = [(self._held.find(tag.text), tag) for tag in active]
            found = [(at, tag) for at, tag in found if at >= 0]
            if not found:
                break
            at, tag = min(found, key=lambda pair: pair[0])
            if at:  # text before a tag may open the answer, where the tag is text: look again
                self._release(at, self._enter_text(), chunks)
                continue
            self._enter(tag)
            self._release(len(tag.text), "control", chunks)
        keep = max((_overlap(self._held, tag.text) for tag in active), default=0)
        ready = len(self._held) - keep
        if ready or not self._held:
            self._release(ready, self._enter_text() if ready else self._current(), chunks)

    def _current(self) -> Kind:
        return "control" if self.section == "start" else "answer" if self.section == "after" else self.section

    def _release(self, count: int, kind: Kind, chunks: list[Chunk]) -> None:
        """Moves `count` held characters, and the tokens that they place, into a chunk of `kind`."""
        text, self._held = self._held[:count], self._held[count:]
        token_ids: list[int] = []
        logprobs: list[PositionLogprobs | None] = []
        while self._pending:
            token = self._pending[0]
            if token.left and not count:
                break
            taken = min(token.left, count)
            token.left -= taken
            count -= taken
            if not token.placed and (kind != "control" or not token.left):
                token.placed = True
                token_ids.append(token.token_id)
                logprobs.append(token.logprobs)
            if token.left:
                break
            self._pending.popleft()
        self._emit(kind, "" if kind == "control" else text, tuple(token_ids), tuple(logprobs), chunks)

    def _emit(
        self,
        kind: Kind,
        text: str,
        token_ids: tuple[int, ...],
        logprobs: tuple[PositionLogprobs | None, ...],
        chunks: list[Chunk],
    ) -> None:
        if self._fresh and kind != "control" and text:
            text = text.lstrip("\n")
            self._fresh = not text
        if not text and not token_ids:
            return
        known = tuple(at for at in logprobs if at is not None)
        last = chunks[-1] if chunks else None
        if last is not None and last.kind == kind:
            chunks.pop()
            text, token_ids, known = last.text + text, last.token_ids + token_ids, (last.logprobs or ()) + known
        chunks.append(Chunk(kind, text, token_ids, known or None))


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`, and not all of it."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
