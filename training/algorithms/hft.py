"""HFT, Hybrid Fine-Tuning (LHRM stage I, arXiv 2505.14631, Eq 4): next-token loss on replies in both modes.

The loss covers the whole reply, mode tag included: without it a free-running model has no first token to choose.
Every question is written once in each of the recipe's modes; with both, the data say nothing about which one is right.
"""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from models.formats.reasoning import Mode
from training.algorithms.parts import Material
from training.config.sections import Modes, SftRecipe
from training.config.source import DataSection
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.replies import ReplyFormat, format_of
from training.data.rows import Row, by_length, learned_row


class HftRecipe(SftRecipe):
    """Each step sees `questions` questions, every one written in each of `modes`.

    With both, P(think) carries no information about the question: the right mode is left for HGPO to find. So it does
    where a question is not `paired` and is written in one mode only, drawn from `modes`, or from those that `modes_at`
    names for its difficulty, which puts the choice into the data. A share `history` of the questions follows an earlier
    one and its answer.
    """

    method: Literal["hft"] = "hft"
    data: DataSection
    modes: Modes = ("think", "no_think")
    modes_at: Mapping[int, Modes] = Field(default_factory=dict)
    paired: bool = True
    history: float = Field(0.0, ge=0, le=1)

    @property
    def rows_a_step(self) -> int:
        return self.questions * (len(self.modes) if self.paired else 1)

    @model_validator(mode="after")
    def _modes_at_is_read(self) -> Self:
        if self.paired:
            self.refuse_unread(("modes_at",), "a paired question is written in every mode")
        return self

    def modes_of(self, difficulty: int) -> Modes:
        return self.modes_at.get(difficulty, self.modes)


def rows(config: HftRecipe, material: Material) -> Iterator[Row]:
    """All rows in the order of training, within a step by length to save padding."""
    form, rng = format_of(config.model.family, material.tokenizer), Random(config.run.seed)
    for step in range(config.steps):
        difficulties = config.difficulties_at(step)
        questions = material.source.draw(difficulties, config.questions, "train", rng)
        follow = rng.sample(range(len(questions)), round(config.history * len(questions)))
        drawn = material.source.draw(difficulties, len(follow), "train", rng)
        earlier = dict(zip(follow, drawn, strict=True))
        yield from by_length(
            mode_row(question, mode, form, earlier.get(i))
            for i, question in enumerate(questions)
            for mode in (config.modes if config.paired else (rng.choice(config.modes_of(question.difficulty)),))
        )


def mode_row(question: TrainingQuestion, mode: Mode, form: ReplyFormat, earlier: TrainingQuestion | None = None) -> Row:
    """The served prompt, perhaps after an earlier exchange as a client sends it back, and the reply in one mode.
    UserError where the question has none."""
    before = [*earlier.messages, {"role": "assistant", "content": earlier.answer}] if earlier else []
    answer = question.answer if mode == "think" or question.direct is None else question.direct
    if not answer or (mode == "think" and not question.thought):
        raise UserError(f"{question.origin}: no {'answer' if not answer else 'thinking'} to learn in mode {mode}")
    return learned_row(form.render([*before, *question.messages]), form.write(mode, question.thought, answer))
