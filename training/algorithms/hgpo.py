"""HGPO, Hybrid Group Policy Optimization (LHRM stage II, arXiv 2505.14631, Eq 5-12): teach when to think.

A step: draw questions; sample N replies each, half of them behind each mode's prefix; reward them; give every token its
advantage; one clipped policy-gradient update.

A *group* is the replies to one question: G rows of rewards, N replies each, the first N/2 in mode think and the last
N/2 in mode no_think. Two binary scores are made of a reply's reward: is it the best of its own mode (intra), and is its
mode the better one (inter)? The intra advantage reaches every token of the reply, the inter advantage its mode token.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.recipe import Recipe
from training.config.sections import PolicyRecipe
from training.data.replies import MODES, ParsedReply, format_of

if TYPE_CHECKING:
    from torch import Tensor


class HgpoAdvantage(Recipe):
    """Eq 8-10, 22, 23. `alpha` weighs the inter term, `delta` is the bonus of no_think, `gamma` REINFORCE++'s discount.

    What the paper leaves open: `ties` "all" gives the intra score to every tied best of a mode, so that a mode of
    equals has none to give, "first" to the first alone; `normalise` is over whose replies mean and deviation of the
    intra score run, all of the group or each mode's; `sample_std` takes the sample's deviation, not the population's.
    A deviation of 0 gives 0. With both modes equal after delta, no_think (the shorter) wins.
    """

    estimator: Literal["grpo", "rloo", "reinforce++"] = "grpo"
    alpha: float = 1.0
    delta: float = 0.2
    gamma: float = 0.99
    ties: Literal["all", "first"] = "all"
    normalise: Literal["group", "mode"] = "group"
    sample_std: bool = False


class HgpoRecipe(PolicyRecipe):
    """`mode_ratio` and `settled` say how the forced mode token is learned, see `training.algorithms.parts`."""

    OWN_ADVANTAGES = True

    method: Literal["hgpo"] = "hgpo"
    advantage: HgpoAdvantage = HgpoAdvantage()
    mode_ratio: Literal["on_policy", "half"] = "on_policy"
    settled: float = Field(1.0, gt=0.5, le=1)


def parts(config: HgpoRecipe, material: Material) -> PolicyParts[ParsedReply]:
    form = format_of(config.model.family, material.tokenizer)
    return PolicyParts(
        source=material.source,
        questions=material.questions,
        render=form.render,
        read=lambda _, ids: form.read(ids),
        reward=earned_score,
        prefixes=[form.prefixes[mode] for mode in MODES],
        mode_position=form.mode_position,
        advantages=partial(token_advantages, settings=config.advantage, position=form.mode_position),
        mode_ratio=config.mode_ratio,
        settled=config.settled,
    )


def earned_score(replies: Sequence[CheckedReply[Any]], progress: float, log: LogMetric) -> list[float]:
    """LHRM's rule reward: the score; 1 for a complete reply with the right answer, else 0."""
    return [one.score for one in replies]


def token_advantages(rewards: "Tensor", mask: "Tensor", settings: HgpoAdvantage, position: int = 0) -> "Tensor":
    """Eq 10, or Eq 22 and 23 by `estimator`: one advantage a token, the inter term at the mode token's `position`.

    `rewards` (G, N); `mask` (G, N, T) is 1 on a reply's tokens. Returns (G, N, T), 0 outside the mask.
    """
    inter, intra = inter_scores(rewards, settings.delta), intra_scores(rewards, settings.ties)
    weights = mask.to(rewards.dtype)
    by_mode = settings.normalise == "mode"
    if settings.estimator == "reinforce++":
        advantages = discounted(intra, weights, settings.gamma)
    elif settings.estimator == "rloo":
        advantages = _apart(intra, by_mode, leave_one_out)[:, :, None] * weights
        inter = leave_one_out(inter)
    else:
        scale = partial(normalised, sample_std=settings.sample_std)
        advantages = _apart(intra, by_mode, scale)[:, :, None] * weights
        inter = scale(inter)
    advantages[:, :, position] += settings.alpha * inter
    return advantages * weights


def inter_scores(rewards: "Tensor", delta: float) -> "Tensor":
    """Eq 8 and the first half of Eq 9: 1 for the replies of the better mode, else 0. (G, N) -> (G, N)."""
    think, no_think = _by_mode(rewards).mean(2).unbind(1)  # (G,)
    thinks = (think > no_think + delta).to(rewards.dtype)[:, None]
    scores = thinks.repeat(1, rewards.shape[1])
    scores[:, rewards.shape[1] // 2 :] = 1 - thinks
    return scores


def intra_scores(rewards: "Tensor", ties: Literal["all", "first"] = "all") -> "Tensor":
    """The second half of Eq 9: 1 for the best replies within each mode, else 0. (G, N) -> (G, N)."""
    by_mode = _by_mode(rewards)
    if ties == "first":
        first = by_mode.argmax(2, keepdim=True)
        return by_mode.new_zeros(by_mode.shape).scatter(2, first, 1.0).view_as(rewards)
    return (by_mode == by_mode.amax(2, keepdim=True)).to(rewards.dtype).view_as(rewards)


def normalised(scores: "Tensor", sample_std: bool = False) -> "Tensor":
    """GRPO: (score - mean) / std over the last dimension; 0 where all are equal."""
    centred = scores - scores.mean(-1, keepdim=True)
    deviation = scores.std(-1, correction=int(sample_std), keepdim=True)
    return (centred / deviation).masked_fill(deviation == 0, 0.0)


def leave_one_out(scores: "Tensor") -> "Tensor":
    """RLOO (Eq 23): each score less the mean of the others, over the last dimension."""
    return scores - (scores.sum(-1, keepdim=True) - scores) / (scores.shape[-1] - 1)


def discounted(scores: "Tensor", weights: "Tensor", gamma: float) -> "Tensor":
    """REINFORCE++ (Eq 22): a score given at the last token, discounted back. (G, N), (G, N, T) -> (G, N, T)."""
    to_go = weights.flip(2).cumsum(2).flip(2) - 1  # tokens after this one
    return scores[:, :, None] * gamma ** to_go.clamp_min(0)


def _apart(scores: "Tensor", by_mode: bool, scale: "Callable[[Tensor], Tensor]") -> "Tensor":
    return scale(_by_mode(scores)).view_as(scores) if by_mode else scale(scores)


def _by_mode(rewards: "Tensor") -> "Tensor":
    """(G, N) -> (G, 2, N/2)"""
    if rewards.ndim != 2 or rewards.shape[1] % 2:
        raise ValueError(f"rewards must be (groups, an even number of replies), not {tuple(rewards.shape)}")
    return rewards.view(len(rewards), 2, -1)
