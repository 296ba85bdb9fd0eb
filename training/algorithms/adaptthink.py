"""AdaptThink (arXiv 2505.13417): skip the thinking where accuracy does not suffer.

Half of the replies to a question are forced into each mode; the old probability of the mode token is 1/2. A reply's
advantage, for all of its tokens, is r - r_ref + delta for one that does not think: r_ref is the accuracy of the
reference on that question. It is not divided by a deviation.
"""

from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.sections import PolicyRecipe
from training.data.errors import UserError
from training.data.replies import MODES, ParsedReply, format_of
from training.data.samples import by_question, read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class AdaptThinkRecipe(PolicyRecipe):
    """`reference` is what `sample` wrote of the reference's thinking replies to the training questions. Without it
    (our choice) the replies of the group that think take its place."""

    OWN_ADVANTAGES = True

    method: Literal["adaptthink"] = "adaptthink"
    delta: float = 0.05
    reference: Path | None = None


def parts(config: AdaptThinkRecipe, material: Material) -> PolicyParts[ParsedReply]:
    form = format_of(config.model.family, material.tokenizer)
    known = reference_scores(config.reference) if config.reference is not None else None
    return PolicyParts(
        source=material.source,
        questions=material.questions,
        render=form.render,
        read=lambda _, ids: form.read(ids),
        reward=partial(gain, known=known),
        prefixes=[form.prefixes[mode] for mode in MODES],
        mode_position=form.mode_position,
        advantages=partial(token_advantages, delta=config.delta, relative=known is None),
        mode_ratio="half",
    )


def reference_scores(path: Path) -> dict[str, float]:
    """The mean score of the replies to each question, by its text."""
    return {replies[0].question.text: mean(one.score for one in replies) for replies in by_question(read_samples(path))}


def gain(
    replies: "Sequence[CheckedReply[Any]]", progress: float, log: LogMetric, known: "Mapping[str, float] | None"
) -> list[float]:
    """The score, less the reference's where that is known."""
    if known is None:
        return [one.score for one in replies]
    if unknown := [one for one in replies if one.question.text not in known]:
        raise UserError(f"the reference holds no reply to the question {unknown[0].question.text!r:.80}")
    return [one.score - known[one.question.text] for one in replies]


def token_advantages(rewards: "Tensor", mask: "Tensor", delta: float, relative: bool) -> "Tensor":
    """(G, N) gains and the (G, N, T) reply mask to (G, N, T) advantages; the second half of a group does not think.
    With `relative` the gain is over the mean of the half that thinks."""
    half = rewards.shape[1] // 2
    gains = rewards - rewards[:, :half].mean(1, keepdim=True) if relative else rewards.clone()
    gains[:, half:] += delta
    return gains[:, :, None] * mask
