"""The machine from token ids to chunks: thinking, answer, tool calls, control. Serving and training use the same one.

A reply has up to five sections: `start` (nothing decided), `budget` (the model's own budget field), `reasoning`,
`answer`, and `after` (behind a closed solution). A tool call stands in the answer. `models.formats.vocabulary` says
which tag leads where. Text that may still become a tag is held back, never more than that; white space before a tag
that opens something, and before a call, is layout.

Each token is worked on by itself, so any way of cutting the stream gives the same chunks. A token whose text is sure to
be of the present section takes the short way: one look-up, one chunk.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from models.engines.base import PositionLogprobs
from models.formats.chunks import CallPart, Chunk, Kind
from models.formats.reasoning import Section
from models.formats.vocabulary import SECTION_OF, Lead, Place, Stage, Tags
from models.tool_calls.reader import CallReader, overlap
from models.tool_calls.tools import Tool

UNDECIDED = ("start", "budget")
"""Sections in which nothing has been said yet of what the client wants to read."""

SILENT: tuple[Stage, ...] = ("start", "closed", "shut", "begun")
QUOTATION_MARKS = frozenset("'\"“‘«")
MOST_SPACES = 1024  # characters of white space that are held back, in the hope of what makes them layout


@dataclass(slots=True)
class _Token:
    """A token of which some characters are still held. `left` counts them; `placed` once it belongs to a chunk."""

    token_id: int
    logprobs: PositionLogprobs | None
    left: int
    placed: bool = False


class ReplyParser:
    """Cuts one reply into chunks.

    `section` is where the reply stands, `in_call` says that a call is open there. `calls_begun` and `calls_closed`
    count the calls. Without `tools` calls are text. What of the prompt belongs to the reply is fed like any other
    tokens, so that machine and prompt cannot disagree.
    """

    __slots__ = (
        "_alerts",
        "_call",
        "_closers",
        "_code",
        "_fresh",
        "_held",
        "_kind",
        "_marks",
        "_pending",
        "_place",
        "_quoted",
        "_tags",
        "_tools",
        "calls_begun",
        "calls_closed",
        "section",
    )

    def __init__(self, tags: Tags, tools: Sequence[Tool] | None = None) -> None:
        self._tags = tags
        self._marks = tags.marks
        self._tools = None if tools is None or tags.calls is None else {tool.name: tool for tool in tools}
        self._call: CallReader | None = None
        self._fresh = False  # just behind a tag: newlines here are layout, not text
        self._code = self._quoted = False  # the answer stands within back-ticks, or just behind a quotation mark
        self._held = ""
        self._pending: deque[_Token] = deque()
        self.calls_begun = self.calls_closed = 0
        self._go("start", ())

    def begin_answer(self) -> None:
        """The answer begins here, without a tag."""
        self._go("begun", ())

    @property
    def in_call(self) -> bool:
        return self._call is not None and self._call.named

    @property
    def pending(self) -> int:
        """Tokens that belong to no chunk yet, because what they are is not known."""
        return sum(not token.placed for token in self._pending)

    def feed(
        self, token_ids: Sequence[int], pieces: Sequence[str], logprobs: Sequence[PositionLogprobs] | None = None
    ) -> list[Chunk]:
        """Chunks that these tokens complete; `pieces[i]` is the text that became known with `token_ids[i]`."""
        chunks: list[Chunk] = []
        for i, token_id in enumerate(token_ids):
            at = None if logprobs is None else logprobs[i]
            kind, piece = self._kind, pieces[i]
            if kind is None or self._pending or self._fresh or token_id in self._marks or self._alerts(piece):
                self._take(token_id, piece, at, chunks)
                continue
            self._quoted = False
            if chunks:
                _add(chunks, Chunk(kind, piece, (token_id,), None if at is None else (at,)))
            else:
                chunks.append(Chunk(kind, piece, (token_id,), None if at is None else (at,)))
        return chunks

    def resume(self, token_ids: Sequence[int], pieces: Sequence[str]) -> None:
        """Takes what the prompt has of the reply. Its tokens are no output, whatever becomes of their text."""
        self.feed(token_ids, pieces)
        for token in self._pending:
            token.placed = True

    def flush(self, cut: bool = False) -> list[Chunk]:
        """What was held back for a tag or a call that never came, once the reply has ended. Where its limit `cut` it,
        half the head of a call is no text."""
        chunks: list[Chunk] = []
        call, self._call = self._call, None
        if call is not None and call.named:
            self._release(len(self._held), "tool", chunks, call.cut(self._held), CallPart(self.calls_begun - 1))
        elif self._pending and call is not None and cut:
            self._release(len(self._held), "tool", chunks, "")
        elif self._pending:
            self._release(len(self._held), self._enter_text(), chunks)
        return chunks

    def shut(self) -> None:
        """The thinking was cut: should it be opened once more, that is text."""
        if self._place.stage == "closed":
            self._go("shut", self._closers)

    def listen(self, tags: Tags) -> list[Chunk]:
        """Another vocabulary speaks from now on. What was held back for a tag is released if tags are tokens there."""
        chunks = self.flush() if self._pending and (self._call is None and not tags.by_text) else []
        self._held = tags.mark(self._tags.unmark(self._held)) if self._pending and self._call is None else self._held
        self._tags, self._marks = tags, tags.marks
        if self._call is not None and tags.calls is not None:
            self._call.translate(tags.calls)
        self._go(self._place.stage, self._closers)
        return chunks

    def closes(self, token_id: int) -> bool:
        """Whether this token is a tag that ends the present section."""
        lead = self._place.leads.get(self._marks.get(token_id, ""))
        return lead is not None and self._call is None and SECTION_OF[lead.to] != self.section

    def opens(self, token_id: int) -> bool:
        """Whether this token is, or begins, something that holds a meaning where the reply stands."""
        text = self._held.lstrip() + self._marks.get(token_id, self._tags.text_of(token_id)).lstrip()
        return bool(self._place.leads) and any(lead.startswith(text) for lead in self._place.leads)

    # The stage

    def _go(self, stage: Stage, closers: tuple[str, ...]) -> None:
        self._closers = closers
        self.section: Section = SECTION_OF[stage]
        self._place: Place = self._tags.place(stage, closers, self._tools is not None)
        self._alerts = _nothing if self._place.alert is None else self._place.alert.search
        waits = stage == "start" and self._place.pattern is not None
        self._kind: Kind | None = None if waits or stage in ("closed", "shut", "begun", "budget") else self._kind_here()

    def _kind_here(self) -> Kind:
        section = SECTION_OF[self._place.stage]
        return "answer" if section in ("start", "after") else section  # type: ignore[return-value]

    def _enter_text(self) -> Kind:
        """Text is said here: the kind that it is of."""
        if self._place.stage in SILENT:
            self._go("resumed" if self._place.stage == "shut" else "said", self._closers)
        return self._kind_here()

    def _enter(self, lead: Lead) -> None:
        self._fresh = self._fresh or lead.to != self._place.stage
        self._go(lead.to, lead.closers)

    # What is held

    def _take(self, token_id: int, piece: str, at: PositionLogprobs | None, chunks: list[Chunk]) -> None:
        mark = self._marks.get(token_id)
        if mark is not None:
            piece = piece.removesuffix(self._tags.texts[mark]) + mark
        self._held += piece
        self._pending.append(_Token(token_id, at, len(piece)))
        while self._step(chunks):
            pass

    def _step(self, chunks: list[Chunk]) -> bool:
        """Places what is known by now. False where more text is needed."""
        if self._call is not None:
            return self._step_call(self._call, chunks)
        place, held = self._place, self._held
        found = place.pattern.search(held) if place.pattern is not None else None
        if found is not None and overlap(held, place.leads) > len(held) - found.start():
            return False  # a longer tag may begin before it
        if found is not None:
            lead, text = place.leads[found[0]], held[: found.start()]
            if place.spaces or place.stage in SILENT:  # what stands before the tag is layout
                text = text.rstrip()
            if lead.quotable and self._quotes(held[: found.start()]):
                self._release(found.end(), self._enter_text(), chunks)
            elif text:  # it may open the answer, where the tag is text: look again
                self._release(len(text), self._enter_text(), chunks)
            elif lead.calls:
                calls = self._tags.spelled_calls if lead.quotable else self._tags.calls
                assert calls is not None and self._tools is not None
                self._call = CallReader(calls, self._tools, found[0], found.end())
                self._kind = None
            else:
                self._enter(lead)
                self._release(found.end(), "control", chunks)
                return bool(self._held)
            return True
        ready = len(held) - overlap(held, place.leads)
        if place.spaces and not (self._fresh and not held[:ready].strip("\n")):  # behind a tag newlines are layout
            said = len(held[:ready].rstrip())
            ready = said if ready - said <= MOST_SPACES and (said == 0 or self._tools is not None) else ready
        if ready or not held:
            said_nothing = place.stage != "start" and not held[:ready].strip()
            self._release(ready, self._silent_kind() if not ready or said_nothing else self._enter_text(), chunks)
        return False

    def _step_call(self, call: CallReader, chunks: list[Chunk]) -> bool:
        place, move = self._place, call.step(self._held)
        if move is None:
            if call.named and not self._held and self._pending:
                self._release(0, "tool", chunks, "")
            return False
        if move.refused:
            self._call = None
            self._go(place.stage, self._closers)
            self._release(move.count, self._enter_text(), chunks)
            return True
        part = CallPart(self.calls_begun - 1) if move.text else None
        if move.name is not None:
            if self.section != "answer":
                self._go("said", ())
                self._kind = None
            part = CallPart(self.calls_begun, self._call_id(move.name, move.id), move.name)
            self.calls_begun += 1
        self.calls_closed += call.closed
        call.closed = 0
        if move.count or move.text or move.name is not None:
            self._release(move.count, "tool", chunks, move.text, part)
        if move.over:
            self._call = None
            self._go("start" if self._tags.form.answer else "said", self._closers)
        return bool(self._held) or move.over

    def _quotes(self, before: str) -> bool:
        """Whether the answer speaks of a tag that stands behind this text of it."""
        code = self._code ^ bool(before.count("`") % 2)
        return code or (before[-1] in QUOTATION_MARKS if before else self._quoted)

    def _call_id(self, name: str, written: str | None) -> str:
        """The id in the model's own form, where it has one and wrote it."""
        form = self._tags.form.history.ids
        if form and written is not None:
            return form.replace("$name", name).replace("$id", written).replace("$short", written)
        return f"call_{uuid4().hex[:24]}"

    def _silent_kind(self) -> Kind:
        return "control" if self._place.stage == "start" else self._kind_here()

    def _release(
        self, count: int, kind: Kind, chunks: list[Chunk], text: str | None = None, call: CallPart | None = None
    ) -> None:
        """Moves `count` held characters, and the tokens that they place, into a chunk of `kind`."""
        taken, self._held = self._held[:count], self._held[count:]
        if text is None:
            text = "" if kind == "control" else self._tags.unmark(taken)
        token_ids: list[int] = []
        logprobs: list[PositionLogprobs] = []
        while self._pending:
            token = self._pending[0]
            if token.left and not count:
                break
            used = min(token.left, count)
            token.left -= used
            count -= used
            if not token.placed and (kind != "control" or not token.left):
                token.placed = True
                token_ids.append(token.token_id)
                if token.logprobs is not None:
                    logprobs.append(token.logprobs)
            if token.left:
                break
            self._pending.popleft()
        if kind == "answer" and text:
            self._code ^= bool(text.count("`") % 2)
            self._quoted = text[-1] in QUOTATION_MARKS
        if self._fresh and kind not in ("control", "tool") and text:
            text = text.lstrip("\n")
            self._fresh = not text
        if text or token_ids or (call is not None and call.name is not None):
            _add(chunks, Chunk(kind, text, tuple(token_ids), tuple(logprobs) or None, call=call))


def _nothing(text: str) -> None:
    """Nothing in a text can be part of a tag."""


def _add(chunks: list[Chunk], chunk: Chunk) -> None:
    """Joins a chunk to the last one where both are of one kind, and of one call."""
    last = chunks[-1] if chunks else None
    if last is None or last.kind != chunk.kind or (chunk.call is not None and chunk.call.name is not None):
        chunks.append(chunk)
        return
    token_ids, logprobs = last.token_ids + chunk.token_ids, (last.logprobs or ()) + (chunk.logprobs or ())
    chunks[-1] = Chunk(last.kind, last.text + chunk.text, token_ids, logprobs or None, call=last.call or chunk.call)
