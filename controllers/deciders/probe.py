"""The model's own probability of thinking, held against a threshold: one token, before the reply is generated."""

import math
from contextlib import aclosing

from controllers.deciders.base import ModeVerdict, Question
from controllers.generation.deltas import next_item
from models.engines.base import Prompt, Sampling
from models.formats.reasoning import Mode


class Probe:
    """P(think) against P(no_think) as the reply's first token, by one token restricted to the two (temperature 1)."""

    async def decide(self, question: Question) -> ModeVerdict | None:
        """None where the client cancels before the probability is there."""
        route, threshold = question.route, question.policy.think_threshold
        assert threshold is not None
        think, direct = route.prefixes["think"][0], route.prefixes["no_think"][0]
        sampling = Sampling(
            max_tokens=1,
            temperature=1.0,
            allowed_token_ids=(think, direct),
            logprob_token_ids=(think, direct),
            logprobs=0,
            priority=question.sampling.priority,
        )
        prompt = Prompt(question.prompt.token_ids, route.adapter, cache_salt=question.request.cache_salt)
        async with aclosing(route.engine.generate(prompt, sampling)) as stream:
            while (delta := await next_item(stream, question.interrupt)) is not None:
                if delta.logprobs:
                    known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                    p_think = 1.0 / (1.0 + math.exp(known[direct] - known[think]))
                    mode: Mode = "think" if p_think >= threshold else "no_think"
                    return ModeVerdict(mode, "threshold", p_think)
        if question.interrupt.cancelled:
            return None
        raise RuntimeError("the probe returned no log-probabilities")
