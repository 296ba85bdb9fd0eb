"""Group-relative policy optimization with a rule reward, for models that think before every reply: the second stage of
a judge (RRM, arXiv 2505.14674), which is told only whether its verdicts are right.

TRL's own GRPO, except that every reply begins with the forced opening tag of thinking, as a server that asks for
thinking forces it; the policy does not learn from that token. No traces: what a judge thinks is its own affair.
"""

from typing import Any

import torch
from torch import Tensor

from models.text.tokenizer import HubTokenizer
from training import rollouts
from training.config import Grpo
from training.replies import Format, format_of
from training.rewards import rule
from training.tasks import TASKS
from training.trl_seam import ForcedPrefixTrainer


def reward_function(config: Grpo, form: Format) -> Any:
    """TRL's face of `rewards.rule`. Reads token ids: TRL's own text has lost the end of turn."""
    task = TASKS[config.task.name]

    def reward(completion_ids: list[list[int]], question: list[str], **_: Any) -> list[float]:
        asked = zip(completion_ids, question, strict=True)
        return [rule(task, text, form.read(ids)) for ids, text in asked]

    return reward


def group_relative(rewards: Tensor, mask: Tensor) -> Tensor:
    """(G, N) rewards and the (G, N, T) reply mask to (G, N, T) advantages: (r - mean) / std of the group, 0 where all
    are equal, and 0 on the forced first token."""
    centred = rewards - rewards.mean(1, keepdim=True)  # (G, N)
    spread = rewards.std(1, keepdim=True)
    scaled = torch.where(spread > 0, centred / spread.clamp_min(1e-9), 0.0)
    advantages = scaled[:, :, None] * mask
    advantages[:, :, 0] = 0
    return advantages


def train(config: Grpo, resume: bool = False) -> None:
    """Runs the recipe: every reply begins with the tag that opens thinking."""

    def parts(_: Any) -> dict[str, Any]:
        form = format_of(config.model.family, HubTokenizer(config.run.out))
        return {
            "reward_funcs": reward_function(config, form),
            "train_dataset": rollouts.questions(config),
            "prefixes": [form.pairs["think"][:1]],
            "render": form.tokenizer.render,
            "token_advantages": group_relative,
        }

    rollouts.train(config, resume, parts, ForcedPrefixTrainer)
