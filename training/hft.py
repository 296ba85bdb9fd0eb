"""Hybrid Fine-Tuning (LHRM stage I, arXiv 2505.14631, Eq 4): next-token loss on replies in both modes.

The loss covers the whole reply, mode tag included: without it a free-running model has no first token to choose.
Every question is written once in each of the recipe's modes; with both, the data say nothing about which one is right.
"""

from collections.abc import Iterator
from random import Random

from models.families import Mode
from training import sft
from training.config import Hft
from training.replies import Format, format_of
from training.tasks import TASKS, Question, draw_many


def row(question: Question, mode: Mode, form: Format) -> sft.Row:
    """One training row: the served prompt, and the reply in one mode."""
    return sft.row(form.prompt(question.text), form.write(mode, question.thought, question.answer))


def rows(config: Hft, form: Format) -> Iterator[sft.Row]:
    """All rows in the order of training, every question in every mode, within a step by length to save padding."""
    task, rng = TASKS[config.task.name], Random(config.run.seed)
    for step in range(config.steps):
        easy = config.easy and step < config.easy_share * config.steps
        questions = draw_many(task, config.easy if easy else config.task.difficulties, config.questions, "train", rng)
        yield from sorted(
            (row(question, mode, form) for question in questions for mode in config.modes),
            key=lambda item: len(item["input_ids"]),
        )


def train(config: Hft, resume: bool = False) -> None:
    """Runs the recipe and writes the model to `config.run.out`."""
    family = config.model.family
    rows_a_step = len(config.modes) * config.questions
    sft.fit(config, lambda tokenizer: rows(config, format_of(family, tokenizer)), rows_a_step, resume)
