"""L1 (arXiv 2503.04697): reasoning to a length that the prompt names.

"Think for N tokens." stands behind the question, N drawn anew for each. L1-Exact earns 1{right} - alpha |N - l|; L1-Max
("at most N tokens") earns 1{right} x (alpha (N - l) + offset), held between 0 and 1. Every reply thinks.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from training.algorithms.parts import CheckedReply, LogMetric, Material, PolicyParts
from training.config.sections import PolicyRecipe
from training.data.questions import TrainingQuestion
from training.data.replies import ParsedReply, format_of


class L1Recipe(PolicyRecipe):
    """`goal` says whether N is to be met or not exceeded; `instruction` is behind the question, `{tokens}` is N."""

    method: Literal["l1"] = "l1"
    goal: Literal["exact", "max"] = "exact"
    shortest: PositiveInt = 100
    longest: PositiveInt = 4000
    alpha: PositiveFloat = 0.0003
    offset: float = 0.5
    instruction: str = ""

    @model_validator(mode="after")
    def _lengths_are_a_range(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError("shortest must not be above longest")
        if self.instruction and "{tokens}" not in self.instruction:
            raise ValueError("instruction needs {tokens}")
        if self.goal == "exact":
            self.refuse_unread(("offset",), "it is goal max's")
        self.refuse_unread(("curriculum",), "questions are drawn beforehand, each with its length")
        return self

    @property
    def sentence(self) -> str:
        return self.instruction or (
            " Think for {tokens} tokens." if self.goal == "exact" else " Think for at most {tokens} tokens."
        )


def parts(config: L1Recipe, material: Material) -> PolicyParts[ParsedReply]:
    form = format_of(config.model.family, material.tokenizer)
    return PolicyParts(
        source=material.source,
        questions=with_lengths(config, material.questions),
        messages=partial(instructed, sentence=config.sentence),
        render=form.render,
        read=lambda _, ids: form.read(ids),
        reward=partial(reward, config=config),
        prefixes=[form.prefixes["think"]],
    )


def with_lengths(config: L1Recipe, questions: Sequence[TrainingQuestion]) -> list[TrainingQuestion]:
    rng = Random(config.run.seed + 2)
    return [replace(one, budget=rng.randint(config.shortest, config.longest)) for one in questions]


def instructed(question: TrainingQuestion, sentence: str) -> list[Any]:
    text = f"{question.text}{sentence.replace('{tokens}', str(question.budget))}"
    return [*question.earlier, {"role": "user", "content": text}]


def reward(
    replies: Sequence[CheckedReply[ParsedReply]], progress: float, log: LogMetric, config: L1Recipe
) -> list[float]:
    wanted = [one.question.budget or 0 for one in replies]
    missing = [n - one.reply.tokens for n, one in zip(wanted, replies, strict=True)]
    log("l1/off", sum(map(abs, missing)) / len(missing))
    if config.goal == "exact":
        return [one.score - config.alpha * abs(short) for one, short in zip(replies, missing, strict=True)]
    return [
        one.score * min(1.0, max(0.0, config.alpha * short + config.offset))
        for one, short in zip(replies, missing, strict=True)
    ]
