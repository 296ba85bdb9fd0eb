"""A reply that has begun before it is decided that it is the reply: read unseen, then let go on, or thrown away.

It is a whole reply with its rules, tools, stop strings and cancellation. Nothing of it is told before the decision, so
nothing that a client was shown is ever taken back.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self

from controllers.deciders.answers import Answer
from controllers.deciders.base import ModeVerdict, Question
from controllers.generation.events import Decision, Event, Finished
from models.engines.base import Sampling
from models.formats.chunks import Chunk


class Draft:
    """A direct reply, unseen. Who leaves its context without a verdict that goes on with it has thrown it away."""

    def __init__(self, question: Question, sampling: Sampling) -> None:
        self._question = question
        self._sampling = replace(sampling, whole=False)
        self._began = time.perf_counter()
        self._held: list[Event] = []
        self.answer = Answer()
        self._kept = False

    async def __aenter__(self) -> Self:
        self._state, self._events = await self._question.begin("no_think", self._sampling)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if not self._kept:
            await self.discard()

    async def discard(self) -> None:
        """Ends the draft: what it has cost was spent on the decision."""
        await self._events.aclose()
        forced = sum(len(chunk.token_ids) for chunk in self._chunks() if chunk.forced)
        self._question.spent.tokens += self._state.position - forced + self._state.discarded_tokens

    async def read(self, most: int) -> None:
        """Reads to its end, to `most` tokens, or until the client wants the answer now."""
        while not self.ended and self._state.position < most and self._question.interrupt.wish != "answer":
            event = await anext(self._events)
            self._held.append(event)
            self.answer.add(event)
            self._question.heard()

    @property
    def ended(self) -> bool:
        return self.answer.end is not None

    @property
    def wanted(self) -> bool:
        """Whether the client wants what there is: the answer now, or the end."""
        return self._question.interrupt.wish is not None

    @property
    def logprobs(self) -> list[float]:
        """Of the answer's tokens. Those of calls may be forced by a grammar, which makes them look unlikely."""
        if not self.answer.text.strip():
            return []
        answer = (chunk.logprobs or () for chunk in self._chunks() if chunk.kind == "answer")
        return [at.sampled.logprob for logprobs in answer for at in logprobs]

    def _chunks(self) -> list[Chunk]:
        return [event for event in self._held if isinstance(event, Chunk)]

    def goes_on(self, verdict: ModeVerdict) -> ModeVerdict:
        """The verdict with this draft as the reply."""
        self._kept = True
        return replace(verdict, draft=self)

    async def events(self, decision: Decision) -> AsyncGenerator[Event, None]:
        """What was held, then the rest as it comes, with the decision that was made of it."""
        decision = replace(decision, held_seconds=time.perf_counter() - self._began)
        async with aclosing(self._events):
            for event in self._held:
                yield self._told(event, decision)
            async for event in self._events:
                yield self._told(event, decision)

    def _told(self, event: Event, decision: Decision) -> Event:
        if isinstance(event, Chunk):
            return event if self._question.sampling.logprobs is not None else replace(event, logprobs=None)
        if isinstance(event, Decision):
            return replace(
                decision, prompt=event.prompt, budget=event.budget, seconds_to_answer=event.seconds_to_answer
            )
        if isinstance(event, Finished):
            own, thrown_away = event.decision, event.discarded_tokens + decision.decision_tokens
            told = replace(decision, prompt=own.prompt, budget=own.budget)
            return replace(event, decision=told, discarded_tokens=thrown_away)
        return event
