"""Thinkless (arXiv 2505.13379): the model chooses its mode itself, and the choice has a weight of its own (DeGRPO).

Nothing is forced. A right direct answer earns 1, a right one behind thinking `think_reward`, all else -1. The loss of
a reply is alpha x that of its mode token + the mean over its other tokens, so that one mode token does not drown among
hundreds. The constants are from memory: alpha 0.001, and a plain difference from the group's mean.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.sections import PolicyRecipe
from training.data.replies import ParsedReply, format_of

if TYPE_CHECKING:
    from torch import Tensor


class ThinklessRecipe(PolicyRecipe):
    """A small `alpha` spares the choice while the replies are learned."""

    OWN_ADVANTAGES = True

    method: Literal["thinkless"] = "thinkless"
    loss: Literal["grpo"] = "grpo"
    alpha: float = 0.001
    think_reward: float = 0.5


def parts(config: ThinklessRecipe, material: Material) -> PolicyParts[ParsedReply]:
    form = format_of(config.model.family, material.tokenizer)
    return PolicyParts(
        source=material.source,
        questions=material.questions,
        render=form.render,
        read=lambda _, ids: form.read(ids),
        reward=partial(reward, think_reward=config.think_reward),
        advantages=partial(token_advantages, alpha=config.alpha, position=form.mode_position),
    )


def reward(
    replies: Sequence[CheckedReply[ParsedReply]], progress: float, log: LogMetric, think_reward: float
) -> list[float]:
    log("thinkless/think_ratio", sum(one.reply.mode == "think" for one in replies) / len(replies))
    right = {"think": think_reward, "no_think": 1.0}
    return [right[one.reply.mode] if one.score == 1 and one.reply.mode else -1.0 for one in replies]


def token_advantages(rewards: "Tensor", mask: "Tensor", alpha: float, position: int) -> "Tensor":
    """(G, N) rewards and the (G, N, T) reply mask to (G, N, T) advantages. TRL's loss "grpo" is the mean over all
    tokens of a reply: times their number n, the mode token's is alpha whole, and the rest's 1 / (n - 1) each."""
    centred = (rewards - rewards.mean(1, keepdim=True))[:, :, None]
    length = mask.sum(2, keepdim=True).clamp_min(2).to(rewards.dtype)
    advantages = (centred * length / (length - 1)).repeat(1, 1, mask.shape[2])
    advantages[:, :, position] = alpha * (centred * length)[:, :, 0]
    return advantages * mask
