"""The target's side of one reply: what it reads, how it scores, how it fails, and the account of what it did."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from controllers.generation.deltas import next_item
from controllers.generation.events import Conversation, Interrupt, TargetFailure, TargetUse
from controllers.generation.prompt import prompt_of
from controllers.generation.route import Route, TargetModel
from controllers.generation.state import ReplyState, forgets_penalties
from controllers.generation.transcripts import Transcript
from controllers.policy.controls import PolicyError, Wish
from controllers.policy.fold import Policy
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


class Target:
    """The target of one reply. `mode` is the mode that its prompt is rendered in."""

    def __init__(self, model: TargetModel, request: Conversation, policy: Policy, mode: Wish) -> None:
        self.model = model
        self._request = request
        self._policy = policy
        self._mode = mode
        self._transcript: Transcript | None = None
        self._seconds = dict.fromkeys(("speculative", "target"), 0.0)
        self._hand_overs = self._reread = self._cached = self._scores = 0

    async def transcript(self) -> Transcript:
        """What the target has read. Its prompt is rendered with its own template when it is first needed."""
        if self._transcript is None:
            inner = self.model.route
            prompt = await prompt_of(inner, self._request, self._mode, self._policy)
            self._transcript = Transcript(inner, prompt.token_ids)
        return self._transcript

    def may_be_asked(self) -> bool:
        """Whether it is not left alone after a failure. A route that fails with its target always asks it."""
        return self.model.settings.on_failure == "fail" or self.model.breaker.try_pass(time.monotonic())

    def segment_began(self, state: ReplyState, prompt: Prompt, first: Delta, *, by_target: bool) -> None:
        if by_target:
            self.model.breaker.succeeded()
        if state.segments > 1:
            self._hand_overs += 1
            self._reread += len(prompt.token_ids)
            self._cached += first.cached_tokens

    def spent(self, state: ReplyState, seconds: float) -> None:
        self._seconds["speculative" if state.writer is state.own else "target"] += seconds

    async def score(self, state: ReplyState, held: Sequence[Delta], interrupt: Interrupt) -> float | None:
        """The target's score of what is held: one token, a digit. None where the client cancels. Raises `EngineError`
        where the target cannot be asked."""
        inner, question = self.model.route, self.model.settings.score_question
        tokenizer = inner.engine.tokenizer
        sampling = Sampling(
            max_tokens=1,
            temperature=0.0,
            allowed_token_ids=self.model.scores,
            priority=state.sampling.priority,
        )
        began = time.perf_counter()
        try:
            transcript = await self.transcript()
            history = transcript.read(state.spans)
            if transcript.shares_vocabulary(state.own):
                history += [token_id for token in held for token_id in token.token_ids]
            else:
                question = "".join(token.text for token in held) + question
            prompt = Prompt([*history, *tokenizer.encode(question)], inner.adapter, cache_salt=self._request.cache_salt)
            async with aclosing(inner.engine.generate(prompt, sampling)) as stream:
                delta = await next_item(stream, interrupt, self.model.settings.patience)
            if delta is None:
                return None
            self.model.breaker.succeeded()
            self._scores += 1
            return float(self.model.scores.index(delta.token_ids[0]))
        except TimeoutError as error:
            raise TargetSlow(f"no token within {self.model.settings.patience} s") from error
        finally:
            self._seconds["target"] += time.perf_counter() - began

    def use(
        self,
        state: ReplyState,
        takeovers: Mapping[str, int],
        target_tokens: int,
        held_seconds: float,
        failure: TargetFailure | None,
    ) -> TargetUse:
        return TargetUse(
            takeovers=dict(takeovers),
            target_tokens=target_tokens,
            completion_tokens=state.completion_tokens,
            scores=self._scores,
            held_seconds=held_seconds,
            seconds=self._seconds,
            hand_overs=self._hand_overs,
            reread_tokens=self._reread,
            cached_tokens=self._cached,
            seams=state.own.seams + (self._transcript.seams if self._transcript else 0),
            failure=failure,
        )


def give_up_on(model: TargetModel, error: EngineError) -> TargetFailure:
    """What the failure is called. Raises the error where the route does not go on without its target."""
    failure = next(name for kind, name in FAILURES if isinstance(error, kind))
    if isinstance(error, InvalidRequest) and failure != "full":
        raise error
    if failure not in PASSING:
        model.breaker.failed(time.monotonic(), model.settings.rest_seconds)
    if model.settings.on_failure == "fail":
        raise error
    log.warning("target %s: %s; the small model goes on alone", model.route.engine.name, error)
    return failure


def refuse(route: Route, model: TargetModel, sampling: Sampling) -> None:
    """Raises `PolicyError` for fields that cannot be kept up over a hand-over."""
    if penalty := forgets_penalties(sampling):
        raise PolicyError(f"{penalty}: cannot be kept up while two models write in turns", penalty)
    if route.engine.tokenizer.vocabulary == model.route.engine.tokenizer.vocabulary:
        return
    for field in BY_TOKEN:
        if getattr(sampling, field) not in (None, ()):
            raise PolicyError(f"{field}: the two models of this route have different vocabularies", field)
