"""Batched sampling with transformers, for evaluation: plain batches, which at demo size beat anything cleverer."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def sample(
    model: Any, prompts: Sequence[Sequence[int]], end: int, *, max_new_tokens: int, temperature: float, batch: int
) -> list[list[int]]:
    """One reply (token ids, end of turn included if it came) to every prompt, in order. Temperature 0 is greedy."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: list[list[int]] = [[] for _ in prompts]
    for chosen in _batches(order, batch):
        ids, mask = _left_padded([prompts[i] for i in chosen])
        with torch.inference_mode():
            sampled = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=temperature > 0,
                temperature=temperature or None,
                top_k=0 if temperature > 0 else None,
                eos_token_id=end,
                pad_token_id=end,
            )[:, ids.shape[1] :]
        for i, reply in zip(chosen, sampled.tolist(), strict=True):
            replies[i] = reply[: reply.index(end) + 1] if end in reply else reply
    return replies


def first_token_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], batch: int
) -> Tensor:
    """The probability of each of `token_ids` as the reply's first token: (len(prompts), len(token_ids))."""
    found = []
    for chosen in _batches(range(len(prompts)), batch):
        ids, mask = _left_padded([prompts[i] for i in chosen])
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        with torch.inference_mode():
            logits = model(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                position_ids=positions.to(model.device),
                logits_to_keep=1,
            ).logits[:, -1]
        found.append(logits.float().softmax(-1)[:, list(token_ids)].cpu())
    return torch.cat(found)


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their (B, T) mask; what stands in the padding is never seen."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask
