"""The direct reply is written first. Where it is written with confidence it is the reply; else the model thinks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, model_validator

from controllers.deciders.ask import Ask, AskConfig
from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from controllers.deciders.calibration import Calibration
from controllers.deciders.drafts import Draft
from controllers.generation.bounds import NEVER
from models.engines.base import Tokenizer

TAIL = 32
RUN = 16
RIGHT = (
    "\n\nDo not answer again. Is the answer above right?\n"
    "{first}) {first_text}\n{second}) {second_text}\nReply with the letter alone."
)
RIGHT_TEXTS = {"think": "No, it may be wrong.", "no_think": "Yes, it is right."}


def mean(logprobs: Sequence[float]) -> float:
    return sum(logprobs) / len(logprobs)


def lowest(logprobs: Sequence[float]) -> float:
    """The least mean of so many in a row."""
    runs = max(1, len(logprobs) - RUN + 1)
    return min(mean(logprobs[at : at + RUN]) for at in range(runs))


SIGNALS: Mapping[str, Callable[[Sequence[float]], float]] = MappingProxyType(
    {"mean": mean, "tail": lambda logprobs: mean(logprobs[-TAIL:]), "low": lowest}
)
"""What is made of the log-probabilities of a draft: one of them that stands for all."""


class DraftConfig(DeciderConfig):
    """The score is 1 - exp(signal): of all tokens of the answer (`mean`), of its last 32 (`tail`), of the least certain
    16 in a row (`low`); or the probability that the model, asked, calls its answer wrong (`p_true`). It is no
    probability of anything, so it needs a `calibration`, or `raw_threshold`, the score from which on the reply thinks.

    The decision falls behind `until` tokens, or at the draft's end; a draft of more than `draft_tokens` tokens thinks.
    """

    decider: Literal["draft"] = "draft"
    signal: Literal["mean", "tail", "low", "p_true"] = "mean"
    draft_tokens: int = Field(default=512, ge=1)
    until: Literal["end"] | int = Field(default="end")
    raw_threshold: float | None = Field(default=None, ge=0, le=1)
    patience: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _decides(self) -> Self:
        if (self.raw_threshold is None) == (not self.calibration):
            raise ValueError("a draft's score is no probability: name a calibration or a raw_threshold, and one only")
        if self.until != "end" and not 1 <= self.until <= self.draft_tokens:
            raise ValueError("until is `end`, or a number of tokens from 1 to draft_tokens")
        if self.until != "end" and self.signal == "p_true":
            raise ValueError("p_true asks about a whole answer: until is `end`")
        return self

    def calibrated(self) -> Calibration:
        return super().calibrated() if self.calibration else Calibration(threshold=self.raw_threshold)


class DirectFirst:
    """Where a draft has no token to score, all of it calls or under a grammar, the model is asked instead."""

    def __init__(self, config: DraftConfig, tokenizer: Tokenizer) -> None:
        """Raises `ValueError` where the model cannot be asked."""
        self._signal = SIGNALS.get(config.signal)
        self._until = NEVER if config.until == "end" else config.until
        self._most = config.draft_tokens
        self._ask = Ask(AskConfig(), tokenizer)
        self._right = Ask(AskConfig(), tokenizer, RIGHT, RIGHT_TEXTS)

    async def decide(self, question: Question) -> ModeVerdict | None:
        sampling = question.sampling
        if self._signal is not None and sampling.logprobs is None:
            sampling = replace(sampling, logprobs=0)
        async with Draft(question, sampling) as draft:
            await draft.read(min(self._until, self._most + 1))
            verdict = None if draft.wanted else await self._verdict(question, draft)
            verdict = verdict or ModeVerdict("no_think", "draft")  # the client wants what there is
            return draft.goes_on(verdict) if verdict.mode == "no_think" else verdict

    async def _verdict(self, question: Question, draft: Draft) -> ModeVerdict | None:
        if not draft.ended and self._until > self._most:
            return ModeVerdict("think", "draft")
        score = await self._score(question, draft)
        if score is None:
            return await self._ask.decide(replace(question, calibration=Calibration()))
        return question.verdict("draft", score)

    async def _score(self, question: Question, draft: Draft) -> float | None:
        """None where there is nothing to score."""
        if self._signal is None:
            return await self._right.p_think(replied(question, draft.answer.text)) if draft.answer.text else None
        shape = question.request.shape
        logprobs = [] if shape is not None and shape.required else draft.logprobs
        return 1.0 - math.exp(self._signal(logprobs)) if logprobs else None


def replied(question: Question, answer: str) -> Question:
    """The question, of a conversation in which the assistant has answered so."""
    request = question.request
    *earlier, last = request.messages
    if request.continue_final:
        turns = [*earlier, {**last, "content": f"{last.get('content') or ''}{answer}"}]
    else:
        turns = [*request.messages, {"role": "assistant", "content": answer}]
    return replace(question, request=replace(request, messages=turns))
