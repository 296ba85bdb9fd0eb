"""Deciders one behind the other: who is unsure asks the next."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from controllers.deciders.base import DeciderConfig, ModeDecider, ModeVerdict, Question


class ChainConfig(DeciderConfig):
    """`links` are tables as `[routes.NAME.auto]` is one, each with a calibration of its own. A link whose p_think is
    within `unsure` asks the next."""

    decider: Literal["chain"] = "chain"
    links: tuple[SerializeAsAny[DeciderConfig], ...] = Field(min_length=2)
    unsure: tuple[float, float] = (0.2, 0.8)
    patience: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.calibration:
            raise ValueError("a chain has no score of its own: calibrate its links")
        if not 0 <= self.unsure[0] <= self.unsure[1] <= 1:
            raise ValueError("unsure is two probabilities, the lower one first")
        return self


class Chain:
    def __init__(self, config: ChainConfig, links: Sequence[ModeDecider]) -> None:
        self.links = links
        self._low, self._high = config.unsure

    async def decide(self, question: Question) -> ModeVerdict | None:
        *earlier, last = self.links
        for link in earlier:
            verdict = await link.decide(question)
            if verdict is None or verdict.p_think is None or not self._low <= verdict.p_think <= self._high:
                return verdict
            if verdict.draft is not None:
                await verdict.draft.discard()
        return await last.decide(question)
