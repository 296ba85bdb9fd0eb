"""HGPO's advantages (arXiv 2505.14631, Eq 8-10, 22, 23): plain functions on tensors, no model, no device.

A *group* is the replies to one question: G rows of rewards, N replies each, the first N/2 in mode think and the last
N/2 in mode no_think. Two binary scores are made of a reply's reward: is it the best of its own mode (intra), and is its
mode the better one (inter)? The intra advantage reaches every token of the reply, the inter advantage its mode token.

Where the paper leaves a point open, `Settings` names it and these are the choices: every tied best gets the 1, so that
a mode of equals has no intra advantage to give; mean and standard deviation run over all N replies of the group; the
deviation is the population's; a deviation of 0 gives 0; with both modes equal after delta, no_think (the shorter) wins.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["grpo", "rloo", "reinforce++"]


@dataclass(frozen=True, slots=True)
class Settings:
    """`alpha` weighs the inter term, `delta` is the bonus of no_think, `gamma` the discount of reinforce++.

    `ties` "first" gives the intra score to the first best of a mode alone.
    """

    estimator: Estimator = "grpo"
    alpha: float = 1.0
    delta: float = 0.2
    gamma: float = 0.99
    ties: Literal["all", "first"] = "all"
    sample_std: bool = False


def inter_scores(rewards: Tensor, delta: float) -> Tensor:
    """Eq 8 and the first half of Eq 9: 1 for the replies of the better mode, else 0. (G, N) -> (G, N)."""
    half = _half(rewards)
    think, no_think = rewards[:, :half].mean(1), rewards[:, half:].mean(1)  # (G,)
    thinks = (think > no_think + delta).to(rewards.dtype)[:, None].expand(-1, half)  # (G, N/2)
    return torch.cat([thinks, 1 - thinks], dim=1)


def intra_scores(rewards: Tensor, ties: Literal["all", "first"] = "all") -> Tensor:
    """The second half of Eq 9: 1 for the best replies within each mode, else 0. (G, N) -> (G, N)."""
    by_mode = rewards.view(len(rewards), 2, _half(rewards))  # (G, 2, N/2)
    if ties == "first":
        first = by_mode.argmax(2, keepdim=True)
        return torch.zeros_like(by_mode).scatter(2, first, 1.0).view_as(rewards)
    return (by_mode == by_mode.amax(2, keepdim=True)).to(rewards.dtype).view_as(rewards)


def normalised(scores: Tensor, sample_std: bool = False) -> Tensor:
    """GRPO: (score - mean) / std within a group; 0 where all are equal. (G, N) -> (G, N)."""
    centred = scores - scores.mean(1, keepdim=True)
    deviation = scores.std(1, correction=int(sample_std), keepdim=True)
    return torch.where(deviation > 0, centred / deviation.clamp_min(torch.finfo(scores.dtype).tiny), 0.0)


def leave_one_out(scores: Tensor) -> Tensor:
    """RLOO (Eq 23): each score less the mean of the others in its group. (G, N) -> (G, N)."""
    others = scores.shape[1] - 1
    return scores - (scores.sum(1, keepdim=True) - scores) / others


def token_advantages(rewards: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """Eq 10, or Eq 22 and 23 by `estimator`: one advantage a token, the mode token first.

    `rewards` (G, N); `mask` (G, N, T) is 1 on a reply's tokens, of which the first is its mode token. Returns
    (G, N, T), 0 outside the mask.
    """
    inter = inter_scores(rewards, settings.delta)
    intra = intra_scores(rewards, settings.ties)
    weights = mask.to(rewards.dtype)
    if settings.estimator == "reinforce++":
        return (settings.alpha * _at_mode_token(inter, mask) + discounted(intra, weights, settings.gamma)) * weights
    if settings.estimator == "rloo":
        inter, intra = leave_one_out(inter), leave_one_out(intra)
    else:
        inter, intra = normalised(inter, settings.sample_std), normalised(intra, settings.sample_std)
    return (intra[:, :, None] + settings.alpha * _at_mode_token(inter, mask)) * weights


def discounted(scores: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """REINFORCE++ (Eq 22): a score given at the last token, discounted back. (G, N), (G, N, T) -> (G, N, T)."""
    to_go = weights.flip(2).cumsum(2).flip(2) - 1  # tokens after this one
    return scores[:, :, None] * gamma ** to_go.clamp_min(0)


def _at_mode_token(scores: Tensor, mask: Tensor) -> Tensor:
    """(G, N) -> (G, N, T), zero but at token 0."""
    placed = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    placed[:, :, 0] = scores
    return placed


def _half(rewards: Tensor) -> int:
    if rewards.ndim != 2 or rewards.shape[1] % 2:
        raise ValueError(f"rewards must be (groups, an even number of replies), not {tuple(rewards.shape)}")
    return int(rewards.shape[1]) // 2
