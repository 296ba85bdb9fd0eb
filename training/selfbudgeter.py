"""SelfBudgeter's budget-guided GRPO (arXiv 2505.11274, stage 3) on TRL's trainer.

A step: sample N replies to each question, each with a budget that the model declares itself; reward them by budget,
length and correctness (`budget_rewards.py`); one clipped policy-gradient update with TRL's group advantages. The
tolerance shrinks from step to step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from datasets import Dataset

from models.text.tokenizer import HubTokenizer
from training import budget_data, budget_rewards, rollouts
from training.budget_format import BudgetFormat, budget_format_of
from training.config import SelfBudgeter
from training.tasks import TASKS, Task


@dataclass(frozen=True, slots=True)
class Scored:
    """One reply: what it earned, and what the log tells of it. `declared` is 0 where there is no budget."""

    reward: float
    correct: bool
    declared: int
    tokens: int

    @property
    def off(self) -> float:
        """How far the length is from the budget, as a share of it."""
        return abs(self.tokens - self.declared) / self.declared if self.declared else float("inf")


def questions(config: SelfBudgeter, form: BudgetFormat, tokenizer: Any) -> Dataset:
    """One row a question, `steps` x `questions` of them, in random order and again from the start where the data end.

    `prompt` is text, with the budget field behind it where `prefilled` is above 0. `most` is b_max, or None.
    """
    rng, observed = Random(config.run.seed + 1), budget_data.read(config.data)
    ranges = budget_data.ranges(observed)
    rows: list[dict[str, Any]] = []
    while len(rows) < config.steps * config.questions:
        for one in rng.sample(observed, len(observed)):
            prefilled = one.difficulty in ranges and rng.random() < config.prefilled_share
            budget = rng.randint(*ranges[one.difficulty]) if prefilled else 0
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": one.text}], tokenize=False, add_generation_prompt=True
            )
            field = form.family.budget_field(budget) if budget else ""
            most = len(one.solution) if one.correct and not budget else None
            rows.append({"prompt": prompt + field, "question": one.text, "prefilled": budget, "most": most})
    return Dataset.from_list(rows[: config.steps * config.questions])


def score(
    form: BudgetFormat,
    task: Task,
    question: str,
    ids: Sequence[int],
    most: float | None,
    alpha: float,
    settings: budget_rewards.Settings,
) -> Scored:
    """One whole reply, a pre-filled budget field included. `most` None: no limit to the budget."""
    reply = form.read(ids)
    correct = reply.complete and task.is_correct(question, reply.answer)
    budget = reply.budget if reply.complete else None
    limit = float("inf") if most is None else most
    earned = budget_rewards.reward(budget, reply.tokens, correct, limit, alpha, settings)
    return Scored(earned, correct, budget or 0, reply.tokens)


def reward_function(config: SelfBudgeter, form: BudgetFormat) -> Any:
    """TRL's face of `score`. Reads token ids: TRL's own text has lost the end of turn."""
    task, settings = TASKS[config.task.name], budget_rewards.Settings(**config.reward.model_dump())

    def reward(
        completion_ids: list[list[int]],
        question: list[str],
        prefilled: list[int],
        most: list[float | None],
        trainer_state: Any,
        log_metric: Any,
        **_: Any,
    ) -> list[float]:
        alpha = budget_rewards.tolerance(trainer_state.global_step / config.steps, settings)
        asked = zip(completion_ids, question, prefilled, most, strict=True)
        scored = [
            score(form, task, text, [*(form.prefill(budget) if budget else ()), *ids], limit, alpha, settings)
            for ids, text, budget, limit in asked
        ]
        for name, value in summary(scored, prefilled).items():
            log_metric(f"budget/{name}", value)
        log_metric("budget/tolerance", alpha)
        return [one.reward for one in scored]

    return reward


def summary(scored: Sequence[Scored], prefilled: Sequence[int]) -> dict[str, float]:
    """Means over the replies with a budget of their own (over all, where every budget was pre-filled)."""
    own = [one for one, budget in zip(scored, prefilled, strict=True) if not budget] or list(scored)
    return {
        "accuracy": sum(one.correct for one in own) / len(own),
        "declared": sum(one.declared for one in own) / len(own),
        "tokens": sum(one.tokens for one in own) / len(own),
        "within_50": sum(one.off <= 0.5 for one in own) / len(own),
        "within_10": sum(one.off <= 0.1 for one in own) / len(own),
    }


def train(config: SelfBudgeter, resume: bool = False) -> None:
    """Runs the recipe."""

    def parts(tokenizer: Any) -> dict[str, Any]:
        form = budget_format_of(config.model.family, HubTokenizer(config.run.out))
        return {
            "reward_funcs": reward_function(config, form),
            "train_dataset": questions(config, form, tokenizer),
        }

    rollouts.train(config, resume, parts)
