"""A language model's head at chosen positions only, without TRL's fused kernel.

The fused head saves a GPU's memory. On a CPU it scores every position, prompts and padding too, in float32, and took
half of the time of a model with a large vocabulary (docs/log.md, 2026-11-21).
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 8
"""Rows of like length that go through the model together: few, so that short replies are not padded to long ones."""


def scored_logits(model: Any, head: Any, input_ids: Tensor, attention_mask: Tensor, scored: Tensor) -> Tensor:
    """The logits (N, V) that predict the N tokens of `input_ids[:, 1:]` for which `scored` (B, T - 1) is set.

    `head` is the output embedding of `model`, which may be wrapped for several devices.
    """
    chosen = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][scored],))
    try:
        logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    finally:
        chosen.remove()
    return logits


def log_probabilities(
    model: Any, head: Any, input_ids: Tensor, attention_mask: Tensor, last: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the last `last` tokens of each row and the entropies there, both (B, last), 0 at padding."""
    order = attention_mask.sum(1).argsort()
    parts = [
        _of_rows(model, head, input_ids[rows], attention_mask[rows], last, temperature) for rows in order.split(ROWS)
    ]
    back = order.argsort()
    return torch.cat([part[0] for part in parts])[back], torch.cat([part[1] for part in parts])[back]


def _of_rows(
    model: Any, head: Any, input_ids: Tensor, attention_mask: Tensor, last: int, temperature: float
) -> tuple[Tensor, Tensor]:
    used = attention_mask.any(0)  # prompts are padded on the left, replies on the right: one stretch
    reply = attention_mask.bool()
    reply[:, :-last] = False
    scored = reply[:, used][:, 1:]
    ids = input_ids[:, used]
    logits = scored_logits(model, head, ids, attention_mask[:, used], scored) / temperature  # (N, V)
    spread = logits.float().log_softmax(-1)
    found = spread.gather(1, ids[:, 1:][scored][:, None]).squeeze(1)
    entropy = -(spread.detach().exp() * spread.detach()).sum(-1)
    empty = found.new_zeros(reply[:, -last:].shape)
    return empty.masked_scatter(reply[:, -last:], found), empty.masked_scatter(reply[:, -last:], entropy)
