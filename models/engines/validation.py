"""What every engine refuses before its first delta, and how long a reply may become. Pure."""

import math
from collections.abc import Iterable

from models.engines.base import Engine, InvalidRequest, Prompt, PromptTooLong, Sampling

# Field, lowest and highest value, whether the lowest itself is allowed: vLLM's own limits.
RANGES = (
    ("temperature", 0.0, 2.0, True),
    ("top_p", 0.0, 1.0, False),
    ("min_p", 0.0, 1.0, True),
    ("presence_penalty", -2.0, 2.0, True),
    ("frequency_penalty", -2.0, 2.0, True),
    ("repetition_penalty", 0.0, math.inf, False),
    ("top_k", -1, math.inf, True),
    ("max_tokens", 1, math.inf, True),
    ("min_tokens", 0, math.inf, True),
    ("logprobs", 0, math.inf, True),
    ("prompt_logprobs", 0, math.inf, True),
    ("thinking_budget", 0, math.inf, True),
)


def admit(engine: Engine, prompt: Prompt, sampling: Sampling) -> int:
    """Checks a request against an engine and returns the most tokens that its reply may have.

    Raises `PromptTooLong` or `InvalidRequest` with the field at fault.
    """
    room = engine.context_length - len(prompt.token_ids)
    if room < 1:
        raise PromptTooLong(len(prompt.token_ids), engine.context_length)
    if not prompt.token_ids:
        raise InvalidRequest("the prompt is empty", "messages")
    if prompt.adapter is not None and prompt.adapter not in engine.adapters:
        raise InvalidRequest(f"engine {engine.name} has no adapter {prompt.adapter}", "model")
    check_token_ids(prompt.token_ids, engine.tokenizer.vocab_size, "messages")
    _check_sampling(sampling, engine.tokenizer.vocab_size)
    most = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
    if sampling.min_tokens > most:
        raise InvalidRequest(
            f"min_tokens is {sampling.min_tokens}, but the reply has at most {most} tokens", "min_tokens"
        )
    return most


def _check_sampling(sampling: Sampling, vocab_size: int) -> None:
    for field, lowest, highest, closed in RANGES:
        value = getattr(sampling, field)
        if value is None:
            continue
        if not (lowest < value <= highest or (closed and value == lowest)):
            raise InvalidRequest(f"{field} is {value}; it goes from {lowest} to {highest}", field)
    for field in ("stop", "bad_words"):
        if not all(getattr(sampling, field)):
            raise InvalidRequest(f"a string in {field} is empty", field)
    for field in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "logit_bias"):
        check_token_ids(getattr(sampling, field) or (), vocab_size, field)


def check_token_ids(token_ids: Iterable[int], vocab_size: int, field: str) -> None:
    """Raises `InvalidRequest` for an id that the vocabulary has not."""
    lowest, highest = min(token_ids, default=0), max(token_ids, default=0)
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise InvalidRequest(f"token id {wrong} is outside the vocabulary of {vocab_size}", field)
