"""Early exit by a trial answer (DEER): where the thought turns, the model answers on trial, beside the running request.

A trial reads the thought up to the turn, which the engine has in its prefix cache. The reply never waits for it: what
is written meanwhile stands, and a thought that was found settled ends with its sentence.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from statistics import fmean

from controllers.generation.bounds import NEVER
from controllers.generation.events import ExitUse
from controllers.generation.state import ReplyState
from controllers.generation.steps import NEGATIVE, Cues, Steps
from controllers.policy.exits import TrialConfig
from controllers.rules.base import Action
from controllers.rules.early_exit import EarlyExit, sentence_over
from controllers.rules.limits import ScopeLimits
from models.engines.base import Delta, Engine, EngineError, Prompt, Sampling

CUES = Cues()


class Trial(EarlyExit[TrialConfig]):
    """One trial at a time. `_turn` is the position behind the last delimiter."""

    __slots__ = (
        "_agreed",
        "_answer",
        "_cache_salt",
        "_cached",
        "_failed",
        "_inducer",
        "_next",
        "_read",
        "_sampling",
        "_settled_at",
        "_steps",
        "_tokens",
        "_trial",
        "_turn",
    )

    def __init__(self, settings: TrialConfig, limits: ScopeLimits, cache_salt: str | None) -> None:
        super().__init__(settings, limits)
        tokenizer, thinking = limits.route.engine.tokenizer, limits.route.family.thinking
        assert thinking is not None
        closer = tuple(tokenizer.encode_control(thinking[1])[:1]) if settings.closed else ()
        stop = () if settings.closed or not settings.end else (settings.end,)
        self._sampling = Sampling(settings.tokens, temperature=0.0, logprobs=0, stop=stop, stop_token_ids=closer)
        self._inducer = tokenizer.encode_control(settings.inducer)
        self._cache_salt = cache_salt
        self._steps = Steps(CUES, settings.delimiters)
        self._trial: asyncio.Task[list[Delta]] | None = None
        self._settled_at: int | None = None
        self._next = self._turn = self._agreed = self._tokens = self._read = self._cached = self._failed = 0
        self._answer = ""

    def asleep_until(self, state: ReplyState) -> int:
        begin = super().asleep_until(state)
        if begin == NEVER or self._trial is not None or self._settled_at is not None:
            return begin
        return NEVER if self._looks >= self._settings.most else max(begin, self._next)

    def before_token(self, state: ReplyState, token: Delta) -> Action | None:
        if self._settled_at is None or state.position < self.asleep_until(state):
            return None
        if sentence_over(state, token):
            return self._ending("line_end")
        return self._ending("hard") if state.position - self._settled_at >= self._settings.patience else None

    def after_token(self, state: ReplyState) -> Action | None:
        if self._trial is not None:
            self._hear(self._trial, state)
        elif self._settled_at is None and state.position >= self.asleep_until(state) and state.finish is None:
            self._look(state)
        return None

    def segment_ended(self) -> None:
        self._steps.skip()
        if self._trial is not None:
            self._trial.cancel()
            self._trial = None

    def exit_use(self) -> ExitUse:
        return replace(
            super().exit_use(),
            probe_tokens=self._tokens,
            prompt_tokens=self._read,
            cached_tokens=self._cached,
            failed=self._failed,
        )

    def _look(self, state: ReplyState) -> None:
        """Whether a trial is due: at a delimiter, or at the sentence behind it once its kind is known."""
        steps, before = self._steps, self._steps.open
        kinds = steps.feed(state.spans[-1].pieces[-1])
        begins, turn = steps.open and (bool(kinds) or not before), self._turn
        if begins:
            self._turn = state.position
        if self._settings.at == "step" and begins:
            self._ask(state, state.position)
        elif self._settings.at == "cue" and kinds and kinds[0] in NEGATIVE:
            self._ask(state, turn)

    def _ask(self, state: ReplyState, turn: int) -> None:
        """Asks behind the reply's first `turn` tokens; the model itself has written what follows them."""
        history = state.own.read(state.spans)
        prompt = [*history[: len(history) - (state.position - turn)], *self._inducer]
        sampling = replace(self._sampling, priority=state.sampling.priority)
        request = Prompt(prompt, state.route.adapter, cache_salt=self._cache_salt, image_inputs=state.image_inputs)
        self._trial = asyncio.create_task(_tried(state.route.engine, request, sampling))
        self._looks += 1
        self._read += len(prompt)
        self._next = state.position + self._settings.apart
        self._steps.skip()

    def _hear(self, trial: "asyncio.Task[list[Delta]]", state: ReplyState) -> None:
        if not trial.done():
            return
        self._trial, deltas = None, trial.result()
        self._failed += not deltas
        self._tokens += sum(len(delta.token_ids) for delta in deltas)
        self._cached += sum(delta.cached_tokens for delta in deltas)
        answer, sure = "".join(delta.text for delta in deltas).strip(), self._confidence(deltas)
        self._best = max(sure, self._best or 0.0)
        if not answer or sure <= self._settings.confidence:
            self._agreed = 0
            return
        self._agreed = self._agreed + 1 if answer == self._answer and self._agreed else 1
        self._answer = answer
        if self._agreed >= self._settings.confirm:
            self._settled_at = state.position

    def _confidence(self, deltas: Sequence[Delta]) -> float:
        """The geometric mean of the tokens' probabilities; 0 where the trial came to no end."""
        drawn = [at.sampled.logprob for delta in deltas for at in delta.logprobs or ()][self._settings.skip :]
        return math.exp(fmean(drawn)) if drawn and deltas[-1].finish == "stop" else 0.0


async def _tried(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[Delta]:
    """What the engine says; nothing where it cannot."""
    try:
        async with aclosing(engine.generate(prompt, sampling)) as stream:
            return [delta async for delta in stream]
    except EngineError:
        return []
