"""SelfBudgeter (arXiv 2505.11274): a model that declares the budget of its reply, and keeps it.

Stage 2 (`budget-sft`) is the base, which learns plain replies, and with `samples` the cold start: the base's own right
replies, each with its true length declared before it, so that a budget comes to mean a length.

Stage 3 (`selfbudgeter`) is budget-guided GRPO: a reply declares its budget and is rewarded by budget, length and
correctness; a tolerance shrinks from step to step. A malformed reply earns `malformed`. Any other: P_B(b, b_max) +
PreB(C, l, b), with b the declared budget, l the length of the solution, C whether it is right, and b_max the length of
the base's reply where that was right, else infinity. The structure is the paper's by several accounts; the exact cosine
and the constants are not certain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import cos, inf, pi
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.recipe import Recipe
from training.config.sections import PolicyRecipe, SftRecipe
from training.data.budget_replies import BudgetFormat, BudgetReply, budget_format_of
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.rows import Row, by_length, learned_row
from training.data.samples import SampledReply, budget_ranges, read_samples


class BudgetSftRecipe(SftRecipe):
    """With `samples` (what `sample` wrote of the base) the cold start, without them the base."""

    method: Literal["budget-sft"] = "budget-sft"
    samples: Path | None = None

    @model_validator(mode="after")
    def _samples_have_no_curriculum(self) -> Self:
        if (self.samples is None) == (self.data is None):
            raise ValueError("budget-sft learns from either data or samples")
        if self.samples is not None:
            self.refuse_unread(("easy", "easy_share"), "samples are drawn of all difficulties alike")
        return self


class BudgetReward(Recipe):
    """The reward's constants, which are not certain. `right` and `wrong` are (s_min, s_max). A correct reply over its
    budget must never lose to a wrong one."""

    tolerance_first: PositiveFloat = 6.0
    tolerance_last: PositiveFloat = 0.1
    malformed: float = -1.0
    over: float = Field(-0.4, le=0)
    right: tuple[float, float] = (0.5, 1.0)
    wrong: tuple[float, float] = (-0.5, 0.0)

    @model_validator(mode="after")
    def _right_never_loses(self) -> Self:
        if self.right[0] + self.over < self.wrong[1]:
            raise UserError("right[0] + over must not be below wrong[1]")
        return self


class SelfBudgeterRecipe(PolicyRecipe):
    """Budget-guided GRPO over the questions of `samples` (what `sample` wrote of the base).

    `prefilled_share` of them come with a random budget already written, within the lengths of their difficulty in
    `samples`: not in the paper, where the policy sees its own budgets alone.
    """

    method: Literal["selfbudgeter"] = "selfbudgeter"
    samples: Path
    reward: BudgetReward = BudgetReward()
    prefilled_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _questions_are_the_samples(self) -> Self:
        self.refuse_unread(("curriculum", "data.difficulties"), "the questions are those of `samples`")
        return self


def rows(config: BudgetSftRecipe, material: Material) -> Iterator[Row]:
    """The base's rows, or the cold start's."""
    form = budget_format_of(config.model.family, material.tokenizer)
    return written_replies(config, form, material) if config.samples is None else own_replies(config, form)


def written_replies(config: BudgetSftRecipe, form: BudgetFormat, material: Material) -> Iterator[Row]:
    """The task's own thoughts, without tags, in the order of training; within a step by length to save padding."""
    rng = Random(config.run.seed)
    for step in range(config.steps):
        drawn = material.source.draw(config.difficulties_at(step), config.questions, "train", rng)
        yield from by_length(
            learned_row(form.render(one.messages), form.plain(form.solution(one.thought, one.answer))) for one in drawn
        )


def own_replies(config: BudgetSftRecipe, form: BudgetFormat) -> Iterator[Row]:
    """The right replies of `config.samples`, drawn at random for each step: of each difficulty equally many, however
    few the base got right. UserError where there is none."""
    assert config.samples is not None
    rng = Random(config.run.seed)
    right: dict[int, list[SampledReply]] = {}
    for one in read_samples(config.samples):
        if one.right:
            right.setdefault(one.question.difficulty, []).append(one)
    if not right:
        raise UserError(f"{config.samples} holds no right reply")
    for _ in range(config.steps):
        chosen = [rng.choice(right[difficulty]) for difficulty in rng.choices(sorted(right), k=config.questions)]
        yield from by_length(
            learned_row(form.render(one.question.messages), form.write(one.ids(form.tokenizer))) for one in chosen
        )


def parts(config: SelfBudgeterRecipe, material: Material) -> PolicyParts[BudgetReply]:
    form = budget_format_of(config.model.family, material.tokenizer)

    def messages(question: TrainingQuestion) -> list[Any]:
        if not question.budget:
            return question.messages
        return [*question.messages, {"role": "assistant", "content": form.family.budget_field(question.budget)}]

    def reward(replies: Sequence[CheckedReply[BudgetReply]], progress: float, log: LogMetric) -> list[float]:
        alpha = tolerance(progress, config.reward)
        for name, value in {**summary(replies), "tolerance": alpha}.items():
            log(f"budget/{name}", value)
        return [earned(one, alpha, config.reward) for one in replies]

    return PolicyParts(
        source=material.source,
        questions=questions(config),
        messages=messages,
        render=form.render,
        read=lambda question, ids: form.read([*(form.prefill(question.budget) if question.budget else ()), *ids]),
        reward=reward,
    )


def questions(config: SelfBudgeterRecipe) -> list[TrainingQuestion]:
    """`steps` x `questions` of them, in random order and again from the start where the samples end. A question with
    a pre-filled `budget` has no `limit`, which is b_max."""
    rng, samples = Random(config.run.seed + 1), read_samples(config.samples)
    ranges, drawn = budget_ranges(samples), list[TrainingQuestion]()
    if not samples:
        raise UserError(f"{config.samples} holds no reply")
    while len(drawn) < config.steps * config.questions:
        for one in rng.sample(samples, len(samples)):
            prefilled = one.question.difficulty in ranges and rng.random() < config.prefilled_share
            budget = rng.randint(*ranges[one.question.difficulty]) if prefilled else None
            limit = one.tokens if one.right and budget is None else None
            drawn.append(replace(one.question, budget=budget, limit=limit))
    return drawn[: config.steps * config.questions]


def earned(one: CheckedReply[BudgetReply], alpha: float, settings: BudgetReward) -> float:
    budget = one.reply.budget
    if not one.reply.complete or budget is None:
        return settings.malformed
    limit = inf if one.question.limit is None else one.question.limit
    return modest(budget, limit, settings) + precise(one.reply.tokens, budget, one.score == 1, alpha, settings)


def tolerance(progress: float, settings: BudgetReward) -> float:
    """Alpha at `progress` (0 to 1) of the run: it shrinks linearly. A loose one that stayed would let b inflate."""
    return settings.tolerance_first + (settings.tolerance_last - settings.tolerance_first) * progress


def best_length(budget: int, correct: bool, alpha: float) -> float:
    """The length that earns most: (1 - alpha) b for a right reply, (1 + alpha) b for a wrong one."""
    return (1 - alpha if correct else 1 + alpha) * budget


def precise(length: int, budget: int, correct: bool, alpha: float, settings: BudgetReward) -> float:
    """PreB: s_min outside of alpha around the budget; within, half a cosine from s_max at the best length to s_min."""
    low, high = settings.right if correct else settings.wrong
    if abs(length - budget) > alpha * budget:
        return low
    away = abs(length - best_length(budget, correct, alpha)) / (2 * alpha * budget)
    return low + (high - low) * (1 + cos(pi * away)) / 2


def modest(budget: int, limit: float, settings: BudgetReward) -> float:
    """P_B: 0 up to `limit` (b_max), `over` beyond."""
    return 0.0 if budget <= limit else settings.over


def summary(replies: Sequence[CheckedReply[BudgetReply]]) -> dict[str, float]:
    """Means over the replies with a budget of their own (over all, where every budget was pre-filled)."""
    own = [one for one in replies if one.question.budget is None] or list(replies)
    declared = [(one.reply.budget or 0) if one.reply.complete else 0 for one in own]
    off = [abs(one.reply.tokens - b) / b if b else inf for one, b in zip(own, declared, strict=True)]
    return {
        "accuracy": sum(one.score == 1 for one in own) / len(own),
        "declared": sum(declared) / len(own),
        "tokens": sum(one.reply.tokens for one in own) / len(own),
        "within_50": sum(share <= 0.5 for share in off) / len(own),
        "within_10": sum(share <= 0.1 for share in off) / len(own),
    }
