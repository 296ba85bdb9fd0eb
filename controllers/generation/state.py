"""One reply over any number of engine requests.

A segment is one engine request. Where the server has to write something itself (a wrap-up phrase, a closing tag), or
where another model takes over, the running request is ended, and the next segment goes on behind all that was said.
What that means for the rest of a request:

- Parser, stop strings and counts are one for the whole reply. Stop strings end the answer; in the thinking, and in what
  the server writes, they are text.
- Tool calls are read from the answer, whatever segment they are in. A grammar holds for one segment: the answer's.
- `max_tokens` bounds the whole, forced tokens included, and usage counts them. Tokens that arrived behind the point of
  a cut are thrown away and counted apart.
- Forced tokens have no log-probabilities and carry a flag.
- A segment belongs to one voice. Where two models write in turns (`voices.py`), positions count the tokens of whoever
  wrote them, and what the server writes itself is in the route's own vocabulary.
- A seed gives each segment a seed of its own, so a reply can be repeated. Repetition penalties see prompt and reply
  alike and carry over. Presence and frequency penalties would forget the earlier segments, so a request that has them
  and may need a second segment is refused (`forgets_penalties`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from controllers.generation.answer_format import AnswerFormat
from controllers.generation.events import BudgetUse, Cut, CutBy, Decision, Finished
from controllers.generation.parser import ThinkingParser
from controllers.generation.throughput import Clock
from controllers.generation.transcripts import Span, Transcript
from controllers.route import Forced, Route
from models.engines.base import Delta, Finish, Prompt, Sampling
from models.formats.chunks import CallPart, Chunk
from models.text.stop_strings import StopMatcher
from models.tool_calls.hermes import CallParser, ToolFormat, Written

SEED_STEP = 0x9E3779B97F4A7C15  # spreads the seeds of a reply's segments; those of its choices are neighbours


class Reply:
    """What has been said so far: it survives every hand-over.

    `position` is the number of its tokens, forced ones included, and `most` how many there may be; `prompt` stands
    before them. `own` is the voice of the route's engine, `voice` the one that speaks now.
    """

    __slots__ = (
        "answer_tokens",
        "cached_tokens",
        "calls",
        "cancelled",
        "clock",
        "completion_tokens",
        "discarded_tokens",
        "finish",
        "most",
        "own",
        "parser",
        "position",
        "prompt",
        "reasoning_tokens",
        "route",
        "sampling",
        "segments",
        "shape",
        "stopped_by",
        "stops",
        "turns",
        "voice",
    )

    def __init__(
        self, route: Route, sampling: Sampling, prompt: Sequence[int], shape: AnswerFormat | None = None
    ) -> None:
        self.route = route
        self.sampling = sampling
        self.shape = shape
        self.calls = Calls(shape.calls) if shape is not None and shape.calls is not None else None
        self.prompt = prompt
        self.parser = ThinkingParser(route.tags)
        self.stops = StopMatcher(sampling.stop, include_stop=sampling.include_stop) if sampling.stop else None
        self.own = self.voice = Transcript(route, prompt)
        self.turns = [Span(self.own)]
        self.position = 0
        self.completion_tokens = self.reasoning_tokens = self.answer_tokens = self.cached_tokens = 0
        self.discarded_tokens = self.segments = 0
        self.finish: Finish | None = None
        self.stopped_by: str | int | None = None
        self.cancelled = False
        self.most = most_tokens(route, prompt, sampling)
        self.clock = Clock()

    def begin(self, prefix: Sequence[int]) -> None:
        """The prompt ends with `prefix`, the reply's forced beginning."""
        tokenizer = self.route.engine.tokenizer
        self.parser.feed(prefix, [tokenizer.token_text(token_id) for token_id in prefix])

    def segment(self, cache_salt: str | None = None, **changes: Any) -> tuple[Prompt, Sampling]:
        """The next engine request: behind all that was said so far, with what is left of the limits. `changes` are
        further settings of its sampling."""
        self.clock.report(self.position)
        self.clock.asked(self.route.pace if self.voice is self.own else None)
        ended = True if "grammar" in changes else None
        prompt = Prompt(self.voice.read(self.turns), self.voice.route.adapter, ended, cache_salt)
        changes = {"stop": (), "include_stop": False, **changes}
        if self.position:
            changes.setdefault("max_tokens", self.most - self.position)
            still = max(0, self.sampling.min_tokens - self.position)
            changes.setdefault("min_tokens", min(still, changes["max_tokens"]))
        if self.segments and self.sampling.seed is not None:
            changes["seed"] = (self.sampling.seed ^ self.segments * SEED_STEP) & (2**63 - 1)
        self.segments += 1
        return prompt, replace(self.sampling, **changes)

    def hand_to(self, voice: Transcript) -> list[Chunk]:
        """Another voice speaks from now on. Text that may still have become a tag in the last one's is released."""
        if voice is self.voice:
            return []
        self.voice = voice
        self.turns.append(Span(voice))
        chunks = self.parser.listen(voice.route.tags)
        self._count(chunks)
        return chunks

    def take(self, delta: Delta) -> list[Chunk]:
        """The chunks of one delta; sets `finish` when it, or a stop string in the answer, ends the reply."""
        self._said(delta.token_ids, delta.pieces)
        chunks = self.parser.feed(delta.token_ids, delta.pieces, delta.logprobs)
        if delta.finish is not None:
            chunks += self.parser.flush()
            self.finish, self.stopped_by = delta.finish, delta.stopped_by
        if self.stops is not None:
            chunks = self._stop(self.stops, chunks, ended=delta.finish is not None)
        for chunk in chunks:  # as `_count` does; this is the path of every token
            count = len(chunk.token_ids)
            self.completion_tokens += count
            if chunk.kind == "reasoning":
                self.reasoning_tokens += count
            elif chunk.kind == "answer":
                self.answer_tokens += count
        if self.voice is not self.own:
            chunks = [replace(chunk, target=True) for chunk in chunks]
        return chunks if self.calls is None else self._with_calls(self.calls, chunks)

    def write(self, forced: Forced) -> list[Chunk]:
        """The server's own tokens, as far as `most` lets it."""
        chunks = self.hand_to(self.own) + self.parser.flush()
        room = max(0, self.most - self.position)
        token_ids, pieces = forced.token_ids[:room], forced.pieces[:room]
        self._said(token_ids, pieces)
        if self.stops is not None and (held := self.stops.flush()):
            chunks.append(Chunk("answer", held, ()))
        chunks += [replace(chunk, forced=True) for chunk in self.parser.feed(token_ids, pieces)]
        self._count(chunks)
        return chunks

    def end(self, finish: Finish, stopped_by: str | int | None = None) -> list[Chunk]:
        """The server ends the reply here."""
        self.finish, self.stopped_by = finish, stopped_by
        chunks = self.parser.flush()
        if self.stops is not None:
            chunks = self._stop(self.stops, chunks, ended=True)
        self._count(chunks)
        return chunks if self.calls is None else self._with_calls(self.calls, chunks)

    def _with_calls(self, calls: "Calls", chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks with the calls in them; ends the reply behind its only call."""
        said = [piece for chunk in chunks for piece in (calls.read(chunk) if chunk.kind == "answer" else [chunk])]
        if self.shape is not None and self.shape.single and calls.closed:
            self.finish, self.stopped_by = "stop", None
        return said if self.finish is None else [*said, *calls.rest()]

    def _said(self, token_ids: Sequence[int], pieces: Sequence[str]) -> None:
        turn = self.turns[-1]
        turn.token_ids.extend(token_ids)
        turn.pieces.extend(pieces)
        self.position += len(token_ids)

    def _count(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            count = len(chunk.token_ids)
            self.completion_tokens += count
            if chunk.kind == "reasoning":
                self.reasoning_tokens += count
            elif chunk.kind == "answer":
                self.answer_tokens += count

    def _stop(self, stops: StopMatcher, chunks: list[Chunk], ended: bool) -> list[Chunk]:
        kept: list[Chunk] = []
        said = self.completion_tokens
        for chunk in chunks:
            said += len(chunk.token_ids)
            if chunk.kind != "answer" or said <= self.sampling.min_tokens:  # they count only beyond those
                kept.append(chunk)
                continue
            kept.append(replace(chunk, text=stops.feed(chunk.text)))
            if stops.matched is not None:
                self.finish, self.stopped_by = "stop", stops.matched
                return kept
        if ended and (rest := stops.flush()):
            kept.append(Chunk("answer", rest, ()))
        return kept

    def finished(self, decision: Decision, budget: BudgetUse | None, cut: Cut | None, cut_by: CutBy | None) -> Finished:
        self.clock.report(self.position)
        return Finished(
            reason=self.finish or "stop",
            stopped_by=self.stopped_by,
            cancelled=self.cancelled,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self.reasoning_tokens,
            answer_tokens=self.answer_tokens,
            cached_tokens=self.cached_tokens,
            decision=decision,
            budget=budget,
            cut=cut,
            cut_by=cut_by,
            segments=self.segments,
            discarded_tokens=self.discarded_tokens,
            calls=0 if self.calls is None else self.calls.begun,
        )


class Calls:
    """Reads tool calls from the answer's chunks. The tokens of a chunk go with the first piece that it gives."""

    __slots__ = ("_parser", "begun")

    def __init__(self, written: ToolFormat) -> None:
        self._parser = CallParser(written)
        self.begun = 0

    @property
    def closed(self) -> int:
        return self._parser.closed

    def read(self, chunk: Chunk) -> list[Chunk]:
        if not chunk.text:
            return [chunk]
        pieces = [self._piece(said) for said in self._parser.feed(chunk.text)] or [Chunk("control", "", ())]
        first = replace(pieces[0], token_ids=chunk.token_ids, logprobs=chunk.logprobs)
        return [replace(piece, forced=chunk.forced) for piece in (first, *pieces[1:])]

    def rest(self) -> list[Chunk]:
        """What was held back for a call, once the answer has ended."""
        return [self._piece(said) for said in self._parser.flush()]

    def _piece(self, said: str | Written) -> Chunk:
        if isinstance(said, str):
            return Chunk("answer", said, ())
        if said.name is None:
            return Chunk("tool", said.arguments, (), call=CallPart(said.number))
        self.begun += 1
        return Chunk("tool", said.arguments, (), call=CallPart(said.number, f"call_{uuid4().hex[:24]}", said.name))


def most_tokens(route: Route, prompt: Sequence[int], sampling: Sampling) -> int:
    """The most tokens that a reply may have: the request's limit, or what the context leaves."""
    room = route.engine.context_length - len(prompt)
    return room if sampling.max_tokens is None else min(room, sampling.max_tokens)


def forgets_penalties(sampling: Sampling) -> str | None:
    """The penalty, by its name, that a second segment would begin anew."""
    return next((name for name in ("presence_penalty", "frequency_penalty") if getattr(sampling, name)), None)


def behind_opening(reply: Reply) -> int:
    """Tokens of the prompt that an engine's native budget counts as thinking: those behind the opening tag."""
    family = reply.route.family
    opening = reply.route.engine.tokenizer.control_id(family.thinking[0]) if family.thinking else None
    return next((count for count, token_id in enumerate(reversed(reply.prompt)) if token_id == opening), 0)


def takes_no_phrase(reply: Reply) -> str | None:
    """Why the server may not wrap up what the reply's budget counts, if so."""
    if penalty := forgets_penalties(reply.sampling):
        return f"{penalty}: cannot be kept up over a cut of the thinking"
    if reply.shape is not None and reply.route.family.scope == "reply":
        return "the answer of this request is tool calls or has a format: it cannot be wrapped up"
    return None
