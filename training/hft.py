"""Hybrid Fine-Tuning (LHRM stage I, arXiv 2505.14631, Eq 4): next-token loss on replies in both modes.

The loss covers the whole reply, mode tag included: without it a free-running model has no first token to choose.
Every question is written once in each of the recipe's modes; with both, the data say nothing about which one is right.
"""

from collections.abc import Iterator
from random import Random

from models.formats.reasoning import Mode
from training import sft
from training.config import Hft
from training.replies import Format, format_of
from training.tasks import TASKS, Question, draw_many


def row(question: Question, mode: Mode, form: Format, earlier: Question | None = None) -> sft.Row:
    """One training row: the served prompt, perhaps after an earlier exchange, and the reply in one mode."""
    history = [(earlier.text, earlier.answer)] if earlier else []
    return sft.row(form.prompt(question.text, history), form.write(mode, question.thought, question.answer))


def rows(config: Hft, form: Format) -> Iterator[sft.Row]:
    """All rows in the order of training, within a step by length to save padding."""
    task, rng = TASKS[config.task.name], Random(config.run.seed)
    for step in range(config.steps):
        easy = config.easy and step < config.easy_share * config.steps
        difficulties = config.easy if easy else config.task.difficulties
        questions = draw_many(task, difficulties, config.questions, "train", rng)
        follow = rng.sample(range(len(questions)), round(config.history * len(questions)))
        earlier = dict(zip(follow, draw_many(task, difficulties, len(follow), "train", rng), strict=True))
        yield from sorted(
            (
                row(question, mode, form, earlier.get(i))
                for i, question in enumerate(questions)
                for mode in (config.modes if config.paired else (rng.choice(config.modes),))
            ),
            key=lambda item: len(item["input_ids"]),
        )


def train(config: Hft, resume: bool = False) -> None:
    """Runs the recipe and writes the model to `config.run.out`."""
    family = config.model.family
    rows_a_step = config.questions * (len(config.modes) if config.paired else 1)
    sft.fit(config, lambda tokenizer: rows(config, format_of(family, tokenizer)), rows_a_step, resume)
