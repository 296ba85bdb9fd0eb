"""Hybrid Group Policy Optimization (LHRM stage II, arXiv 2505.14631, Eq 5-12) on TRL's GRPO trainer.

A step: draw questions; sample N replies each, half of them behind each mode tag; reward them; give every token its
advantage (`advantages.py`); one clipped policy-gradient update. What touches TRL's inside is in `trl_seam.py`.
"""

from typing import Any

from torch import Tensor

from models.text.tokenizer import HubTokenizer
from training import rollouts
from training.advantages import Settings, token_advantages
from training.config import Hgpo
from training.replies import MODES, Format, format_of
from training.rewards import correctness
from training.tasks import TASKS
from training.trl_seam import ForcedPrefixTrainer


def reward_function(config: Hgpo, form: Format) -> Any:
    """TRL's face of `rewards.correctness`. Reads token ids: TRL's own text has lost the end of turn."""
    task = TASKS[config.task.name]

    def reward(completion_ids: list[list[int]], question: list[str], **_: Any) -> list[float]:
        asked = zip(completion_ids, question, strict=True)
        return [correctness(task, text, form.read(ids)) for ids, text in asked]

    return reward


def train(config: Hgpo, resume: bool = False) -> None:
    """Runs the recipe: half of the replies to each question begin with each mode's tag."""
    settings = Settings(**config.advantage.model_dump())

    def advantages(rewards: Tensor, mask: Tensor) -> Tensor:
        return token_advantages(rewards, mask, settings)

    def parts(_: Any) -> dict[str, Any]:
        form = format_of(config.model.family, HubTokenizer(config.run.out))
        return {
            "reward_funcs": reward_function(config, form),
            "train_dataset": rollouts.questions(config),
            "prefixes": [form.pairs[mode][:1] for mode in MODES],
            "render": form.tokenizer.render,
            "token_advantages": advantages,
            "mode_ratio": config.mode_ratio,
            "settled": config.settled,
            "fused_head": config.fused_head,
        }

    rollouts.train(config, resume, parts, ForcedPrefixTrainer)
