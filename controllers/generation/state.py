"""The state of one reply, over any number of engine requests. The driver writes it; rules and encoders read it.

A segment is one engine request. Where the server writes something itself (a wrap-up phrase, a closing tag), or where
another model takes over, the running request ends, and the next segment goes on behind all that was written.
What that means for the rest of a request:

| what | over segments |
|---|---|
| parser, stop strings, counts | one for the whole reply |
| stop strings, the client's stop token ids | end the answer; elsewhere they are text |
| a grammar | holds for one segment: the answer's |
| `max_tokens` | bounds the whole, forced tokens included; usage counts them |
| tokens behind a cut | thrown away and counted apart |
| forced tokens | have no log-probabilities and carry a flag |
| a seed | gives each segment a seed of its own, so a reply can be repeated |
| repetition penalty | sees prompt and reply alike, so it carries over |
| presence, frequency penalty | would begin anew: refused where a second segment may be needed |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controllers.generation.answer_format import AnswerFormat
from controllers.generation.events import BudgetUse, Decision, ExitUse, Finished, TargetUse
from controllers.generation.prompt import RenderedPrompt
from controllers.generation.route import Forced, Route
from controllers.generation.throughput import Clock
from controllers.generation.transcripts import Span, Transcript
from controllers.policy.controls import Cut, CutBy
from models.engines.base import Delta, Finish, PositionLogprobs, Prompt, Sampling, check_token_ids
from models.formats.chunks import Chunk
from models.formats.parser import ReplyParser
from models.text.stop_strings import StopMatcher

SEED_STEP = 0x9E3779B97F4A7C15  # spreads the seeds of a reply's segments; those of its choices are neighbours
TAIL = 4  # characters of text that are kept to tell the end of a line or a sentence


@dataclass(slots=True, kw_only=True)
class ReplyState:
    """One reply as it stands.

    Who writes: `own` is the transcript of the route's engine, `writer` that of the engine that writes now, `spans` what
    each wrote. `image_inputs` is what the route's engine made of the prompt's images. Where it stands: `position` is
    the number of its tokens, forced ones included, `max_tokens` how many there may be, `parser.section` the section.
    `scope_opened` is the position at which the stretch began that the budget counts, None before it; `wrapped_up` says
    that the model has been told to come to an end. `engine_budget` says that the running request itself keeps the
    budget, `more_logprobs` that it gives more log-probabilities than the client wants, `grammar_pending` that the
    answer's grammar is still to come. `segment_over`: the running request is to be closed. `wake_at` is the position
    from which on rules look at tokens.
    """

    route: Route
    sampling: Sampling
    prompt: Sequence[int]
    max_tokens: int
    parser: ReplyParser
    stops: StopMatcher | None
    ends_behind_call: bool
    own: Transcript
    writer: Transcript
    spans: list[Span]
    image_inputs: Any = None
    grammar_pending: bool = False
    position: int = 0
    segments: int = 0
    segment_over: bool = False
    engine_budget: bool = False
    more_logprobs: bool = False
    wake_at: int = 0
    scope_opened: int | None = None
    wrapped_up: bool = False
    budget_text: str = ""
    declared: int | None = None
    tail: str = ""
    next_report: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int = 0
    discarded_tokens: int = 0
    cut: Cut | None = None
    cut_by: CutBy | None = None
    finish: Finish | None = None
    stopped_by: str | int | None = None
    cancelled: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    @property
    def over(self) -> bool:
        """Whether the running request, or the whole reply, has ended."""
        return self.segment_over or self.finish is not None

    @property
    def full(self) -> bool:
        """Whether the reply has used all of its tokens. The engine refuses a prompt that leaves room for none."""
        return 0 < self.position >= self.max_tokens

    def next_request(self, cache_salt: str | None, changes: dict[str, Any]) -> tuple[Prompt, Sampling]:
        """The next engine request, behind all that was written, with what is left of the reply's limits. `changes` are
        further settings of its sampling."""
        self.clock.report(self.position)
        self.clock.asked(self.route.pace if self.writer is self.own else None)
        self.segment_over, self.more_logprobs = False, "logprobs" in changes
        ended = True if "grammar" in changes else None
        image_inputs = self.image_inputs if self.writer is self.own else None
        prompt = Prompt(self.writer.read(self.spans), self.writer.route.adapter, ended, cache_salt, image_inputs)
        changes = {"stop": (), "include_stop": False, **changes}
        if self.position:
            changes.setdefault("max_tokens", self.max_tokens - self.position)
            still = max(0, self.sampling.min_tokens - self.position)
            changes.setdefault("min_tokens", min(still, changes["max_tokens"]))
        if self.segments and self.sampling.seed is not None:
            changes["seed"] = (self.sampling.seed ^ self.segments * SEED_STEP) & (2**63 - 1)
        self.segments += 1
        return prompt, replace(self.sampling, **changes)

    def tokens_since(self, position: int) -> Iterator[int]:
        """The ids from a position of the reply on, whoever wrote them."""
        number = len(self.spans) - 1
        at = self.position - len(self.spans[number].token_ids)
        while at > position:
            number -= 1
            at -= len(self.spans[number].token_ids)
        for span in self.spans[number:]:
            yield from span.token_ids[max(0, position - at) :]
            at += len(span.token_ids)

    def first_delta(self, delta: Delta) -> None:
        """The running request has begun to write."""
        if delta.finish is None:  # a reply that comes at once tells nothing of the engine's pace
            self.clock.began(self.position + len(delta.token_ids), first=self.segments == 1)
        self.cached_tokens = self.cached_tokens or delta.cached_tokens

    def hand_to(self, writer: Transcript) -> list[Chunk]:
        """Another model writes from now on. Text that may still have become a tag in the last one's is released."""
        if writer is self.writer:
            return []
        self.writer = writer
        self.spans.append(Span(writer))
        chunks = self.parser.listen(writer.route.tags)
        self._count(chunks)
        return chunks

    def take(self, delta: Delta) -> list[Chunk]:
        """The chunks of one delta. Sets `finish` where it, or a stop string in the answer, ends the reply; what stands
        behind that in the same delta must be cut off before (`one_by_one`)."""
        if self.sampling.stop_token_ids and self._stops_at(delta):
            text = delta.pieces if self.sampling.include_stop else ("",)
            delta = replace(delta, pieces=text, finish="stop", stopped_by=delta.token_ids[-1])
        self._record(delta.token_ids, delta.pieces)
        chunks = self.parser.feed(delta.token_ids, delta.pieces, self._asked_for(delta.logprobs))
        if delta.finish is not None:
            chunks += self.parser.flush(cut=delta.finish == "length")
            self.finish, self.stopped_by = delta.finish, delta.stopped_by
        if self.stops is not None:
            chunks = self._stop(self.stops, chunks, ended=delta.finish is not None)
        self._count(chunks)
        if self.writer is not self.own:
            chunks = [replace(chunk, target=True) for chunk in chunks]
        if self.ends_behind_call and self.parser.calls_closed and self.finish is None:
            chunks += self.end("stop")
        return chunks

    def _asked_for(self, logprobs: tuple[PositionLogprobs, ...] | None) -> tuple[PositionLogprobs, ...] | None:
        """The log-probabilities that the client wants of those that the request gives for a rule."""
        if logprobs is None or not self.more_logprobs:
            return logprobs
        count = self.sampling.logprobs
        return None if count is None else tuple(replace(at, top=at.top[:count]) for at in logprobs)

    @property
    def one_by_one(self) -> bool:
        """Whether any token may end the reply, so that those behind it in one delta are not the reply's."""
        return self.stops is not None or self.ends_behind_call or bool(self.sampling.stop_token_ids)

    def engine_stop_ids(self) -> tuple[int, ...]:
        """The ids at which the next request is to end: the family's own, and the client's where only an answer can
        come."""
        answers = self.parser.section == "answer" or self.route.answers_at_once
        own = self.writer.route.ends
        return (*(self.sampling.stop_token_ids if answers else ()), *(() if own is None else (own,)))

    def _stops_at(self, delta: Delta) -> bool:
        """Whether this is a stop token of the client's, in the answer, that the engine was not told of."""
        if delta.finish is not None or self.parser.section != "answer" or self.position < self.sampling.min_tokens:
            return False
        return delta.token_ids[-1:] in [(token_id,) for token_id in self.sampling.stop_token_ids]

    def write(self, forced: Forced) -> list[Chunk]:
        """The server's own tokens, as far as `max_tokens` lets it."""
        chunks = self.hand_to(self.own) + self.parser.flush()
        room = max(0, self.max_tokens - self.position)
        token_ids, pieces = forced.token_ids[:room], forced.pieces[:room]
        self._record(token_ids, pieces)
        if self.stops is not None and (held := self.stops.flush()):
            chunks.append(Chunk("answer", held, ()))
        chunks += [replace(chunk, forced=True) for chunk in self.parser.feed(token_ids, pieces)]
        self._count(chunks)
        return chunks

    def end(self, finish: Finish, stopped_by: str | int | None = None) -> list[Chunk]:
        """The server ends the reply here."""
        self.finish, self.stopped_by = finish, stopped_by
        chunks = self.parser.flush(cut=finish == "length")
        if self.stops is not None:
            chunks = self._stop(self.stops, chunks, ended=True)
        self._count(chunks)
        return chunks

    def _record(self, token_ids: Sequence[int], pieces: Sequence[str]) -> None:
        span = self.spans[-1]
        span.token_ids.extend(token_ids)
        span.pieces.extend(pieces)
        self.position += len(token_ids)

    def _count(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            count = len(chunk.token_ids)
            self.completion_tokens += count
            if chunk.kind == "reasoning":
                self.reasoning_tokens += count
            elif chunk.kind in ("answer", "tool"):
                self.answer_tokens += count
        assert self.reasoning_tokens + self.answer_tokens <= self.completion_tokens <= self.position

    def _stop(self, stops: StopMatcher, chunks: list[Chunk], ended: bool) -> list[Chunk]:
        kept: list[Chunk] = []
        tokens = self.completion_tokens
        for chunk in chunks:
            tokens += len(chunk.token_ids)
            if chunk.kind != "answer" or tokens <= self.sampling.min_tokens:  # they count only beyond those
                kept.append(chunk)
                continue
            kept.append(replace(chunk, text=stops.feed(chunk.text)))
            if stops.matched is not None:
                self.finish, self.stopped_by = "stop", stops.matched
                return kept
        if ended and (rest := stops.flush()):
            kept.append(Chunk("answer", rest, ()))
        return kept

    def finished(
        self, decision: Decision, budget: BudgetUse | None, target: TargetUse | None, early_exit: ExitUse | None = None
    ) -> Finished:
        """The end of the reply. Its clock tells the engine's pace what is left to tell."""
        assert self.finish is not None
        self.clock.report(self.position)
        family_end = self.stopped_by == self.route.ends and self.route.ends not in self.sampling.stop_token_ids
        return Finished(
            reason=self.finish,
            stopped_by=None if family_end else self.stopped_by,
            cancelled=self.cancelled,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self.reasoning_tokens,
            answer_tokens=self.answer_tokens,
            cached_tokens=self.cached_tokens,
            decision=decision,
            budget=budget,
            cut=self.cut,
            cut_by=self.cut_by,
            segments=self.segments,
            discarded_tokens=self.discarded_tokens,
            calls=self.parser.calls_begun,
            target=target,
            early_exit=early_exit,
            more=self.notes,
        )


def new_reply(route: Route, sampling: Sampling, prompt: RenderedPrompt, answer: AnswerFormat | None) -> ReplyState:
    """A reply of which nothing is written; its prompt may have opened its thinking."""
    check_token_ids(sampling.stop_token_ids, route.engine.tokenizer.vocab_size, "stop_token_ids")
    own = Transcript(route, prompt.token_ids)
    state = ReplyState(
        route=route,
        sampling=sampling,
        prompt=prompt.token_ids,
        max_tokens=room_for_reply(route, prompt.token_ids, sampling),
        parser=ReplyParser(route.tags, answer.tools if answer is not None and answer.calls is not None else None),
        stops=StopMatcher(sampling.stop, include_stop=sampling.include_stop) if sampling.stop else None,
        ends_behind_call=answer is not None and answer.single and answer.calls is not None,
        own=own,
        writer=own,
        spans=[Span(own)],
        image_inputs=prompt.image_inputs,
    )
    tokenizer = route.engine.tokenizer
    state.parser.resume(prompt.opening, [tokenizer.token_text(token_id) for token_id in prompt.opening])
    return state


def room_for_reply(route: Route, prompt: Sequence[int], sampling: Sampling) -> int:
    """The most tokens that a reply may have: the request's limit, or what the context leaves."""
    room = route.engine.context_length - len(prompt)
    return room if sampling.max_tokens is None else min(room, sampling.max_tokens)


def forgets_penalties(sampling: Sampling) -> str | None:
    """The penalty, by its name, that a second segment would begin anew."""
    return next((name for name in ("presence_penalty", "frequency_penalty") if getattr(sampling, name)), None)
