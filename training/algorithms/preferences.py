"""HFT-RFT and HFT-DPO, LHRM's baselines (arXiv 2505.14631): the best of a model's own replies, learned or preferred.

Both read what `sample` wrote of a hybrid model in both forced modes. RFT learns the best reply to each question. DPO
prefers the best reply in the better mode to the worst in the other. Mean scores say which mode is better; of equal
ones, in score as in length, the shorter is. DPO takes pairs of a data file too (`chosen` and `rejected`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import mean
from typing import Literal, Self, TypeVar

from pydantic import Field, PositiveFloat, model_validator

from training.algorithms.parts import Material
from training.config.sections import RowRecipe
from training.data.errors import UserError
from training.data.questions import ReadQuestions, TrainingQuestion
from training.data.replies import ReplyFormat, format_of
from training.data.rows import PairRow, Row, by_length, learned_row
from training.data.samples import SampledReply, by_question, read_samples

T = TypeVar("T")


class RftRecipe(RowRecipe):
    """A question whose best reply scores less than `min_score` is left out."""

    method: Literal["hft-rft"] = "hft-rft"
    samples: Path
    min_score: float = 1.0

    @model_validator(mode="after")
    def _data_are_the_samples(self) -> Self:
        self.refuse_unread(("data",), "the questions are those of `samples`")
        return self


class DpoRecipe(RowRecipe):
    """`beta` holds the model to where it began; `sft` is the weight of next-token loss on the preferred reply."""

    method: Literal["hft-dpo"] = "hft-dpo"
    samples: Path | None = None
    beta: PositiveFloat = 0.1
    sft: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.samples is None) == (self.data is None):
            raise ValueError("hft-dpo takes its pairs either from samples or from data")
        self.refuse_unread(("fused_head",), "preferences have no fused head")
        return self


def rft_rows(config: RftRecipe, material: Material) -> Iterator[Row]:
    form = format_of(config.model.family, material.tokenizer)
    best = [max(replies, key=lambda one: one.worth) for replies in by_question(read_samples(config.samples))]
    kept = [one for one in best if one.complete and one.score >= config.min_score]
    if not kept:
        raise UserError(f"{config.samples} holds no reply that scores {config.min_score:g}")
    for chosen in _dealt(kept, config):
        yield from by_length(learned_row(form.render(one.question.messages), _written(one, form)) for one in chosen)


def dpo_rows(config: DpoRecipe, material: Material) -> Iterator[PairRow]:
    form = format_of(config.model.family, material.tokenizer)
    if config.samples is not None:
        pairs = [pair for replies in by_question(read_samples(config.samples)) if (pair := mode_pair(replies))]
        rows = [_pair_row(form, a.question, _written(a, form), _written(b, form)) for a, b in pairs]
    else:
        assert isinstance(material.source, ReadQuestions)
        rows = [
            _pair_row(form, one, _text(form, one.chosen), _text(form, one.rejected))
            for one in material.source.sides["train"]
            if one.chosen and one.rejected
        ]
    if not rows:
        raise UserError(f"{config.samples or 'data'}: there is no pair of replies of which one is better")
    for chosen in _dealt(rows, config):
        yield from chosen


def mode_pair(replies: Sequence[SampledReply]) -> tuple[SampledReply, SampledReply] | None:
    """The best reply in the better mode and the worst in the other; None where one mode is absent, or where both
    are worth the same."""
    modes = [[one for one in replies if one.asked == mode] for mode in ("think", "no_think")]
    if not all(modes):
        return None
    better, other = sorted(modes, key=lambda of_one: tuple(map(mean, zip(*(r.worth for r in of_one), strict=True))))[
        ::-1
    ]
    best, worst = max(better, key=lambda one: one.worth), min(other, key=lambda one: one.worth)
    return (best, worst) if best.worth > worst.worth else None


def _written(one: SampledReply, form: ReplyFormat) -> list[int]:
    if one.mode is None:
        raise UserError(f"{one.question.origin}: a reply without a mode cannot be learned")
    return form.write(one.mode, one.thinking, one.reply)


def _text(form: ReplyFormat, reply: str | None) -> list[int]:
    return [*form.tokenizer.encode_control(reply or ""), form.end]


def _pair_row(form: ReplyFormat, question: TrainingQuestion, chosen: list[int], rejected: list[int]) -> PairRow:
    return {"prompt_ids": form.render(question.messages), "chosen_ids": chosen, "rejected_ids": rejected}


def _dealt(items: Sequence[T], config: RowRecipe) -> Iterator[list[T]]:
    """The items of each step: all of them in random order, and again in another."""
    rng, deck = Random(config.run.seed), list[T]()
    for _ in range(config.steps):
        while len(deck) < config.questions:
            deck += rng.sample(items, len(items))
        yield deck[: config.questions]
        del deck[: config.questions]
