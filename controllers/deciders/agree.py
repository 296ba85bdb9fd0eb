"""Several direct replies are drafted. Where they agree the first is the reply; else the model thinks."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Literal

from pydantic import Field

from controllers.concurrency import gather
from controllers.deciders.answers import Compared
from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from controllers.deciders.drafts import Draft

SEED_STEP = 0xD1B54A32D192ED03  # spreads the seeds of the drafts; those of a request's choices are neighbours


class AgreeConfig(DeciderConfig):
    """The score is the share of the other drafts that do not agree with the first, in what is compared (`compare`). An
    empty answer, and one of more than `draft_tokens` tokens, agrees with none. The first draft is drawn as the client
    asked, the others at `temperature`.
    """

    decider: Literal["agree"] = "agree"
    drafts: int = Field(default=2, ge=2, le=8)
    compare: Compared = "text"
    temperature: float = Field(default=0.7, gt=0, le=2)
    draft_tokens: int = Field(default=512, ge=1)
    patience: float = Field(default=10.0, gt=0)


class Agree:
    def __init__(self, config: AgreeConfig) -> None:
        self._config = config

    async def decide(self, question: Question) -> ModeVerdict | None:
        config, sampling = self._config, question.sampling
        async with AsyncExitStack() as stack:
            drafts = [await stack.enter_async_context(Draft(question, sampling))]
            for number in range(1, config.drafts):
                seed = None if sampling.seed is None else (sampling.seed ^ number * SEED_STEP) & (2**63 - 1)
                drawn = replace(sampling, temperature=config.temperature, seed=seed, logprobs=None)
                drafts.append(await stack.enter_async_context(Draft(question, drawn)))
            await gather([draft.read(config.draft_tokens + 1) for draft in drafts])
            verdict = (
                ModeVerdict("no_think", "agree")
                if drafts[0].wanted
                else question.verdict("agree", self._dissent(drafts))
            )
            return drafts[0].goes_on(verdict) if verdict.mode == "no_think" else verdict

    def _dissent(self, drafts: list[Draft]) -> float:
        """The share of the other drafts that do not agree with the first."""
        first, *others = (draft.answer.gist(self._config.compare) if draft.ended else None for draft in drafts)
        return sum(first is None or other != first for other in others) / len(others)
