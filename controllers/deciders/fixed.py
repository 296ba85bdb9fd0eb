"""Deciders that look at nothing: baselines to hold others against."""

import random
from typing import Literal

from pydantic import Field

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from models.formats.reasoning import Mode


class AlwaysConfig(DeciderConfig):
    decider: Literal["always"] = "always"


class NeverConfig(DeciderConfig):
    decider: Literal["never"] = "never"


class RandomConfig(DeciderConfig):
    """`rate` is the share of replies that think. A request with a seed gets the same decision each time."""

    decider: Literal["random"] = "random"
    rate: float = Field(default=0.5, ge=0, le=1)


class Fixed:
    """The same decision each time."""

    def __init__(self, mode: Mode) -> None:
        self._verdict = ModeVerdict(mode, "always" if mode == "think" else "never")

    async def decide(self, question: Question) -> ModeVerdict | None:
        return self._verdict


class Random:
    def __init__(self, config: RandomConfig) -> None:
        self._rate = config.rate

    async def decide(self, question: Question) -> ModeVerdict | None:
        drawn = random.Random(question.sampling.seed).random()
        return ModeVerdict("think" if drawn < self._rate else "no_think", "random", self._rate)
