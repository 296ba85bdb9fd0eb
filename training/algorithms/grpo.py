"""Group-relative policy optimization with a rule reward, for models that think before every reply: the second stage of
a judge (RRM, arXiv 2505.14674), which is told only whether its verdicts are right.

TRL's own GRPO, except that every reply begins with the forced opening of thinking, as a server that asks for thinking
forces it. No traces: what a judge thinks is its own affair. With a judge as `data.checker`, whose scores are ratings,
the same method post-trains a policy on questions without answers.
"""

from collections.abc import Sequence
from typing import Any, Literal

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.sections import PolicyRecipe
from training.data.replies import ParsedReply, format_of


class GrpoRecipe(PolicyRecipe):
    method: Literal["grpo"] = "grpo"


def parts(config: GrpoRecipe, material: Material) -> PolicyParts[ParsedReply]:
    form = format_of(config.model.family, material.tokenizer)
    return PolicyParts(
        source=material.source,
        questions=material.questions,
        render=form.render,
        read=lambda _, ids: form.read(ids),
        reward=rule,
        prefixes=[form.prefixes["think"]],
    )


def rule(replies: Sequence[CheckedReply[Any]], progress: float, log: LogMetric) -> list[float]:
    """RRM's rule reward: +1 for a right verdict, -1 for a wrong one or none."""
    return [2 * one.score - 1 for one in replies]
