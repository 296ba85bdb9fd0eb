"""SelfBudgeter's data (stage 1): the base's reply to each training question, whether it is right, and its length."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch

from models.text.tokenizer import HubTokenizer
from training import weights
from training.budget_format import budget_format_of
from training.config import BudgetData
from training.sampling import sample
from training.tasks import TASKS, draw_many

EDGES = (0.05, 0.95)
"""Budgets are pre-filled between these shares of the base's lengths: beyond them hardly any reply was trained."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The base's reply to one question. `solution` is its token ids, without the end of turn."""

    text: str
    difficulty: int
    solution: list[int]
    correct: bool


def main(recipe: BudgetData) -> str:
    """Samples, writes the file, and says what it holds."""
    form = budget_format_of(recipe.model.family, HubTokenizer(recipe.model.path))
    model = weights.load_model(recipe.model, weights.load_tokenizer(recipe.model), recipe.seed).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    task = TASKS[recipe.task.name]
    asked = draw_many(task, recipe.task.difficulties, recipe.questions, "train", Random(recipe.seed))
    replies = sample(
        model,
        [form.prompt(question.text) for question in asked],
        form.end,
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        batch=recipe.batch,
    )
    observed = []
    for question, ids in zip(asked, replies, strict=True):
        reply = form.read_plain(ids)
        correct = reply.complete and task.is_correct(question.text, reply.answer)
        observed.append(Observed(question.text, question.difficulty, ids[: reply.tokens], correct))
    write(observed, recipe.out)
    right = sum(one.correct for one in observed)
    return f"{recipe.out}: {len(observed)} replies, {right} right"


def write(observed: Sequence[Observed], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in observed))


def read(path: Path) -> list[Observed]:
    return [Observed(**json.loads(line)) for line in path.read_text().splitlines()]


def ranges(observed: Sequence[Observed]) -> dict[int, tuple[int, int]]:
    """By difficulty, the lengths between which nine in ten of the base's right replies lie: the trained budgets."""
    lengths: dict[int, list[int]] = {}
    for one in observed:
        if one.correct:
            lengths.setdefault(one.difficulty, []).append(len(one.solution))
    return {difficulty: _between(sorted(found)) for difficulty, found in lengths.items()}


def _between(lengths: Sequence[int]) -> tuple[int, int]:
    low, high = (lengths[int(edge * (len(lengths) - 1))] for edge in EDGES)
    return low, high
