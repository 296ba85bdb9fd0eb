"""One token, restricted to two: how likely is the one against the other. What probe and ask share."""

import math
from contextlib import aclosing

from controllers.deciders.base import Question
from controllers.generation.deltas import next_item
from models.engines.base import Prompt, Sampling


async def probability(question: Question, prompt: list[int], chosen: int, other: int) -> float | None:
    """P(chosen) against P(other) as the next token, at temperature 1. None where the client cancels before that."""
    route = question.route
    sampling = Sampling(
        max_tokens=1,
        temperature=1.0,
        allowed_token_ids=(chosen, other),
        logprob_token_ids=(chosen, other),
        logprobs=0,
        priority=question.sampling.priority,
    )
    request = Prompt(prompt, route.adapter, cache_salt=question.request.cache_salt)
    async with aclosing(route.engine.generate(request, sampling)) as stream:
        while (delta := await next_item(stream, question.interrupt)) is not None:
            question.spent.tokens += len(delta.token_ids)
            if delta.logprobs:
                known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                return 1.0 / (1.0 + math.exp(known[other] - known[chosen]))
    if question.interrupt.cancelled:
        return None
    raise RuntimeError("the engine returned no log-probabilities")
