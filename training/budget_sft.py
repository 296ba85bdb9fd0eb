"""Supervised stages of SelfBudgeter (arXiv 2505.11274): its base, and the cold start.

The base learns plain replies. The cold start learns the base's own right replies, each with its true length declared
before it, so that a budget comes to mean a length.
"""

from collections.abc import Iterator
from random import Random

from models.text.tokenizer import HubTokenizer
from training import budget_data, sft
from training.budget_format import BudgetFormat, budget_format_of
from training.config import BudgetSft
from training.tasks import TASKS, draw_many


def train(config: BudgetSft, resume: bool = False) -> None:
    """Runs the recipe and writes the model to `config.run.out`."""

    def rows(tokenizer: HubTokenizer) -> Iterator[sft.Row]:
        form = budget_format_of(config.model.family, tokenizer)
        return own_replies(config, form) if config.data else written_replies(config, form)

    sft.fit(config, rows, config.questions, resume)


def written_replies(config: BudgetSft, form: BudgetFormat) -> Iterator[sft.Row]:
    """The task's own thoughts, without tags, in the order of training; within a step by length to save padding."""
    task, rng = TASKS[config.task.name], Random(config.run.seed)
    for step in range(config.steps):
        easy = config.easy and step < config.easy_share * config.steps
        asked = draw_many(task, config.easy if easy else config.task.difficulties, config.questions, "train", rng)
        yield from by_length(
            sft.row(form.prompt(one.text), form.plain(form.solution(one.thought, one.answer))) for one in asked
        )


def own_replies(config: BudgetSft, form: BudgetFormat) -> Iterator[sft.Row]:
    """The right replies of `config.data`, drawn at random for each step: of each difficulty equally many, however few
    the base got right. ValueError where there is none."""
    if config.data is None:
        raise ValueError("the cold start needs data")
    rng = Random(config.run.seed)
    right: dict[int, list[budget_data.Observed]] = {}
    for one in budget_data.read(config.data):
        if one.correct:
            right.setdefault(one.difficulty, []).append(one)
    if not right:
        raise ValueError(f"{config.data} holds no right reply")
    for _ in range(config.steps):
        chosen = [rng.choice(right[difficulty]) for difficulty in rng.choices(sorted(right), k=config.questions)]
        yield from by_length(sft.row(form.prompt(one.text), form.write(one.solution)) for one in chosen)


def by_length(rows: Iterator[sft.Row]) -> list[sft.Row]:
    return sorted(rows, key=lambda row: len(row["input_ids"]))
