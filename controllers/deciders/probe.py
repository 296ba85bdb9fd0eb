"""The model's own probability of thinking, held against a threshold: one token, before the reply is generated."""

from typing import Literal

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question, probability


class ProbeConfig(DeciderConfig):
    decider: Literal["probe"] = "probe"


class Probe:
    """P(think) against P(no_think) as the reply's first token, for models with a token for each mode."""

    async def decide(self, question: Question) -> ModeVerdict | None:
        think, direct = question.route.prefixes["think"][0], question.route.prefixes["no_think"][0]
        p_think = await probability(question, question.prompt, think, direct)
        return None if p_think is None else question.verdict("threshold", p_think)
