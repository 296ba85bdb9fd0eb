"""The models that write one reply together, each in its own vocabulary.

What a model wrote itself it reads back as the very ids that it sampled, so that its engine finds them in its prefix
cache. What another one wrote it reads as the same ids where both have one vocabulary, else as text, encoded once. Each
seam is checked: both sides of it must decode to the reply's own text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from controllers.generation.route import Route
from models.formats.vocabulary import Tag

ANCHOR = "\n"
SEAM_TOKENS = 8  # of what stands before a seam: enough for any character, and for a decoder that joins tokens
BYTES_OF_CHARACTER = 4


class Transcript:
    """One model's side of a reply. `history` is all that it has read: its prompt, then the reply in its vocabulary."""

    def __init__(self, route: Route, prompt: Sequence[int]) -> None:
        self.route = route
        self.history = list(prompt)
        self.seams = 0  # texts that this vocabulary could not take over to the character
        self._turns = 0  # turns of the reply that were read whole
        self._at = 0  # tokens read of the next one

    def shares_vocabulary(self, other: "Transcript") -> bool:
        return self is other or self.route.engine.tokenizer.vocabulary == other.route.engine.tokenizer.vocabulary

    def read(self, turns: Sequence["Span"]) -> list[int]:
        """Reads on to the end of the last turn; returns the whole history, a list of its own."""
        for number in range(self._turns, len(turns)):
            turn, following = turns[number], turns[number + 1] if number + 1 < len(turns) else None
            if not self.shares_vocabulary(turn.writer):
                for part in turn.parts(self._at):
                    self._take_over(part)
            elif following is None or self.shares_vocabulary(following.writer):
                self._read_back(turn.token_ids[self._at :])
            else:
                self._read_back(turn.token_ids[self._at : max(self._at, turn.complete())])
            self._at = 0
        self._turns, self._at = len(turns) - 1, len(turns[-1].token_ids)
        return self.history.copy()

    def _read_back(self, token_ids: Sequence[int]) -> None:
        """A model may sample ids behind the end of its tokenizer's vocabulary (its rows are padded): they have no text,
        and no engine takes them."""
        size = self.route.engine.tokenizer.vocab_size
        self.history += [token_id for token_id in token_ids if token_id < size]

    def _tail(self) -> list[int]:
        """The end of the history, from where a character begins: a decoder may lose a run of bytes to a half one."""
        sizes = range(SEAM_TOKENS, SEAM_TOKENS + BYTES_OF_CHARACTER)
        tails = (self.history[-size:] for size in sizes)
        decode = self.route.engine.tokenizer.decode
        whole = (tail for tail in tails if not decode(tail, False).startswith("\ufffd"))
        return next(whole, self.history[-SEAM_TOKENS:])

    def _take_over(self, part: "Tag | str") -> None:
        """Reads what another vocabulary wrote."""
        tokenizer = self.route.engine.tokenizer
        if isinstance(part, Tag):
            self.history += tokenizer.encode_control(part.text)
            return
        tail = self._tail()
        wanted = tokenizer.decode(tail, False) + part
        token_ids = tokenizer.encode(part)
        if tokenizer.decode([*tail, *token_ids], False) != wanted:
            # Some tokenizers put a blank before whatever they begin with; behind an anchor the text is no beginning.
            anchored = tokenizer.encode(ANCHOR + part)[len(tokenizer.encode(ANCHOR)) :]
            if tokenizer.decode([*tail, *anchored], False) == wanted:
                token_ids = anchored
            else:
                self.seams += 1
        self.history += token_ids


@dataclass(frozen=True, slots=True)
class Span:
    """What one model wrote in one go: `pieces[i]` is the text that became known with `token_ids[i]`."""

    writer: Transcript
    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def parts(self, start: int = 0) -> Iterator[Tag | str]:
        """The text from the token at `start` on, taken apart at the family's tags."""
        tags = self.writer.route.tags
        text = ""
        for token_id, piece in zip(self.token_ids[start:], self.pieces[start:], strict=True):
            tag = tags.by_id.get(token_id)
            if tag is None:
                text += piece
                continue
            yield from spelled(text, tags.by_text)
            yield tag
            text = ""
        yield from spelled(text, tags.by_text)

    def complete(self) -> int:
        """The number of its tokens without those of a last character that it did not complete."""
        count = len(self.token_ids)
        while count and not self.pieces[count - 1] and self.token_ids[count - 1] not in self.writer.route.tags.by_id:
            count -= 1
        return count


def spelled(text: str, tags: Sequence[Tag]) -> Iterator[Tag | str]:
    """A text taken apart at the tags that are known by their characters."""
    for tag in tags:
        before, found, behind = text.partition(tag.text)
        if found:
            yield from spelled(before, tags)
            yield tag
            yield from spelled(behind, tags)
            return
    if text:
        yield text
