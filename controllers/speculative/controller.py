"""Speculative Thinking, served: a small model writes, a large one takes over where the thought turns.

The small model streams in one long request. A guide (`speculation.py`) reads along; only where it rules for a takeover
is the request closed, and the target goes on behind what was said, on the prefix that its engine has cached. What
stands behind a delimiter is held back until its sentence is classified, since it may be replaced. Any number of replies
do this side by side, so the takeovers of many meet in the target's batch.

Budgets bound both models together (the watcher counts tokens, whoever wrote them); a reply that does not think never
wakes the target; without the target, the small model goes on alone where the route says so.
"""

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from controllers.generation import driver
from controllers.generation.deltas import cancellable
from controllers.generation.events import Conversation, Event, Finished, Interrupt, TargetFailure, TargetUse
from controllers.generation.prompt import prefix, rendered
from controllers.generation.state import forgets_penalties
from controllers.generation.transcripts import Transcript
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Policy
from controllers.route import Route, TargetModel
from controllers.speculative.takeovers import Takeover
from controllers.speculative.turns import Duet
from models.engines.base import (
    Delta,
    EngineBusy,
    EngineDead,
    EngineError,
    InvalidRequest,
    Prompt,
    PromptTooLong,
    Sampling,
)

log = logging.getLogger(__name__)

BY_TOKEN = ("logit_bias", "allowed_token_ids", "stop_token_ids", "logprobs")
"""Fields that name tokens of one vocabulary: two models with different ones cannot both honour them."""


class TargetSlow(EngineError):
    """The target was silent for longer than the route waits."""


FAILURES: tuple[tuple[type[EngineError], TargetFailure], ...] = (
    (EngineBusy, "busy"),
    (PromptTooLong, "full"),
    (TargetSlow, "slow"),
    (EngineDead, "dead"),
    (EngineError, "error"),
)
PASSING: tuple[TargetFailure, ...] = ("busy", "full")
"""Failures that say nothing about the target's health."""


def run(route: Route, request: Conversation, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
    """One reply, by both models where there is thinking to share."""
    unwanted = not policy.target or (policy.mode == "no_think" and policy.chosen_by == "client")
    shaped = request.shape is not None and route.family.thinking is None  # then the answer is all there is to share
    if route.target is None or unwanted or shaped:
        return driver.run(route, request, policy, sampling)
    return together(route, route.target, request, policy, replace(sampling, whole=False))


async def together(
    route: Route, target: TargetModel, request: Conversation, policy: Policy, sampling: Sampling
) -> AsyncGenerator[Event, None]:
    """Raises `PolicyError` for fields that cannot be kept up over a hand-over."""
    refuse(route, target, sampling)
    opening = await driver.begin(route, request, policy, sampling)
    reply = opening.reply
    duet = Duet(reply, opening.watcher, target, policy, request.interrupt)
    engines = Engines(target, request, policy, opening, duet)
    for event in opening.told():
        yield event
    while reply.finish is None:
        for event in opening.told(duet.due()):
            yield event
        if reply.finish is not None:
            break
        try:
            for event in opening.told(engines.hand_over()):
                yield event
            async with aclosing(engines.segment()) as stream:
                async for delta in stream:
                    said = duet.take(delta)
                    while duet.unscored:
                        said += duet.scored(await engines.score())
                    for event in said if opening.done else opening.told(said):
                        yield event
                    if reply.finish is not None or duet.handover:
                        break
        except EngineError as error:
            for event in opening.told(engines.failed(error)):
                yield event
        for event in opening.told(opening.watcher.left()):
            yield event
    yield engines.finished()


class Engines:
    """Asks the two engines of one reply, whoever's turn it is, and keeps the accounts."""

    __slots__ = (
        "_cached",
        "_duet",
        "_hand_overs",
        "_opening",
        "_policy",
        "_reply",
        "_request",
        "_reread",
        "_scores",
        "_seconds",
        "_target",
        "_voice",
        "_watcher",
    )

    def __init__(
        self, target: TargetModel, request: Conversation, policy: Policy, opening: driver.Opening, duet: Duet
    ) -> None:
        self._target = target
        self._request = request
        self._policy = policy
        self._opening = opening
        self._reply = opening.reply
        self._watcher = opening.watcher
        self._duet = duet
        self._voice: Transcript | None = None
        self._seconds = dict.fromkeys(("speculative", "target"), 0.0)
        self._hand_overs = self._reread = self._cached = self._scores = 0

    @property
    def target(self) -> Transcript:
        """The target's voice. Its prompt is rendered with its own template when it is first needed."""
        if self._voice is None:
            inner, request = self._target.route, self._request
            prompt = rendered(inner, request)
            if self._opening.forced:
                prompt += prefix(inner, self._opening.decision.mode, self._policy.prefill)
            self._voice = Transcript(inner, prompt)
        return self._voice

    def hand_over(self) -> Sequence[Event]:
        return self._reply.hand_to(self._reply.own if self._duet.turn is None else self.target)

    async def segment(self) -> AsyncGenerator[Delta, None]:
        """The next request to whoever writes now."""
        reply, turn = self._reply, self._duet.turn
        changes = self._watcher.limits()
        if turn is not None:
            changes |= self._target_limits()
        prompt, sampling = reply.segment(self._request.cache_salt, **changes)
        generated = reply.voice.route.engine.generate(prompt, sampling)
        patience = None if turn is None else self._target.patience
        asked = time.perf_counter()
        first = True
        try:
            async with aclosing(with_timeout(generated, self._request.interrupt, patience)) as stream:
                async for delta in stream:
                    if first:
                        first = False
                        self._began(turn, prompt, delta)
                    yield delta
        finally:
            self._seconds["speculative" if turn is None else "target"] += time.perf_counter() - asked

    def _target_limits(self) -> dict[str, Any]:
        most = self._duet.room
        return {
            "max_tokens": most,
            "min_tokens": min(most, max(0, self._reply.sampling.min_tokens - self._reply.position)),
        }

    def _began(self, turn: Takeover | None, prompt: Prompt, first: Delta) -> None:
        if turn is not None:
            self._target.outage.answered()
        if self._reply.segments > 1:
            self._hand_overs += 1
            self._reread += len(prompt.token_ids)
            self._cached += first.cached_tokens

    async def score(self) -> float | None:
        """The target's verdict on what is held: one token, a digit. None where it cannot be asked."""
        tokenizer, scores = self._target.route.engine.tokenizer, self._target.scores
        sampling = Sampling(max_tokens=1, temperature=0.0, allowed_token_ids=scores)
        question = self._target.settings.score_question
        asked = time.perf_counter()
        try:
            history = self.target.read(self._reply.turns)
            if self.target.shares_vocabulary(self._reply.own):
                history += [token_id for step in self._duet.held for token_id in step.token_ids]
            else:
                question = "".join(step.text for step in self._duet.held) + question
            prompt = Prompt(
                [*history, *tokenizer.encode(question)], self._target.route.adapter, cache_salt=self._request.cache_salt
            )
            generated = self._target.route.engine.generate(prompt, sampling)
            async with aclosing(with_timeout(generated, self._request.interrupt, self._target.patience)) as stream:
                async for delta in stream:
                    self._target.outage.answered()
                    self._scores += 1
                    return float(scores.index(delta.token_ids[0]))
        except EngineError as error:
            self._give_up(error)
        finally:
            self._seconds["target"] += time.perf_counter() - asked
        return None

    def failed(self, error: EngineError) -> Sequence[Event]:
        """A request failed. Raises the error unless the small model can go on alone; what was held back comes out where
        the reply ends."""
        if self._duet.turn is not None:
            self._give_up(error)
            return ()
        if isinstance(error, PromptTooLong) and self._reply.position:
            return self._reply.end("length")  # what the target wrote takes more tokens of this vocabulary
        raise error

    def _give_up(self, error: EngineError) -> None:
        failure = next(name for kind, name in FAILURES if isinstance(error, kind))
        if isinstance(error, InvalidRequest) and failure != "full":
            raise error
        if failure not in PASSING:
            self._target.outage.failed(time.monotonic(), self._target.rest)
        if self._target.on_failure == "fail":
            raise error
        log.warning("target %s: %s; the small model goes on alone", self._target.route.engine.name, error)
        self._duet.failed(failure)

    def finished(self) -> Finished:
        duet, reply = self._duet, self._reply
        duet.close()
        use = TargetUse(
            takeovers=dict(duet.takeovers),
            target_tokens=duet.target_tokens,
            completion_tokens=reply.completion_tokens,
            scores=self._scores,
            held_seconds=duet.held_seconds,
            seconds=self._seconds,
            hand_overs=self._hand_overs,
            reread_tokens=self._reread,
            cached_tokens=self._cached,
            seams=reply.own.seams + (self._voice.seams if self._voice else 0),
            failure=duet.failure,
        )
        return replace(self._watcher.finished(self._opening.decision), target=use)


async def with_timeout(
    stream: AsyncGenerator[Delta, None], interrupt: Interrupt | None, patience: float | None
) -> AsyncGenerator[Delta, None]:
    """The stream's deltas, until the client cancels. Closes the stream. Raises `TargetSlow` when it is silent for
    longer than `patience` seconds."""
    try:
        async with aclosing(cancellable(stream, interrupt, patience)) as deltas:
            async for delta in deltas:
                yield delta
    except TimeoutError as error:
        raise TargetSlow(f"no token within {patience} s") from error


def refuse(route: Route, target: TargetModel, sampling: Sampling) -> None:
    if penalty := forgets_penalties(sampling):
        raise PolicyError(f"{penalty}: cannot be kept up while two models write in turns", penalty)
    if route.engine.tokenizer.vocabulary == target.route.engine.tokenizer.vocabulary:
        return
    for field in BY_TOKEN:
        if getattr(sampling, field) not in (None, ()):
            raise PolicyError(f"{field}: the two models of this route have different vocabularies", field)
