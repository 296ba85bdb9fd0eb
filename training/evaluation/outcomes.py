"""Outcomes of questions asked in both modes, and of deciders: what `sample` keeps, an array element a question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.samples import SampledReply
from training.evaluation.thresholds import Floats, Side, side_of

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reply:
    """Replies to each question: whether right, tokens, seconds to the first text and to the answer. Each is the mean of
    several; `one` is whether the first is right."""

    right: Floats
    one: Floats
    tokens: Floats
    first: Floats
    answer: Floats


@dataclass(frozen=True, slots=True)
class DeciderReplies:
    """What a decider did with each question: its score (None: it has none), whether it thought, its own reply with all
    tokens that the choice cost, and what it costs to think after all."""

    score: Floats | None
    thinks: NDArray[np.bool_]
    reply: Reply
    spent: Floats
    waited: Floats


@dataclass(frozen=True, slots=True)
class Outcomes:
    sides: Sequence[Side]
    think: Reply
    direct: Reply
    choices: Mapping[str, DeciderReplies]

    def rows(self, side: Side) -> Rows:
        return np.flatnonzero([one == side for one in self.sides])


def grouped(samples: Sequence[SampledReply], of_each: int) -> list[Sequence[SampledReply]]:
    """The replies to each question that was drawn; one that was drawn twice is two."""
    return [samples[i : i + of_each] for i in range(0, len(samples), of_each)]


def read(groups: Sequence[Sequence[SampledReply]], deciders: Sequence[str]) -> Outcomes:
    """The outcomes of questions with all their replies."""
    forced = {
        mode: _replies([[one for one in group if one.asked == mode] for group in groups])
        for mode in ("think", "no_think")
    }
    own = {name: [next(one for one in group if one.way.decider == name) for group in groups] for name in deciders}
    choices = {name: _choice(replies) for name, replies in own.items()}
    sides = [side_of(group[0].question.text) for group in groups]
    return Outcomes(sides, forced["think"], forced["no_think"], choices)


def _replies(groups: Sequence[Sequence[SampledReply]]) -> Reply:
    def column(value: Callable[[SampledReply], float]) -> NDArray[np.float64]:
        return np.array([[value(one) for one in group] for group in groups], float)

    right = column(lambda one: one.right)
    times = [column(lambda one, name=name: getattr(one.served, name)) for name in ("first", "answer")]  # type: ignore[misc]
    return Reply(right.mean(1), right[:, 0], column(lambda one: one.tokens).mean(1), *(time.mean(1) for time in times))


def _choice(replies: Sequence[SampledReply]) -> DeciderReplies:
    """A draft that was accepted is the reply; to think after all costs all of it."""
    own, served = _replies([[one] for one in replies]), [one.served for one in replies]
    spent = np.array([one.decision_tokens for one in served if one], float)
    drafted = np.array([one.drafted for one in served if one])
    scores = [one.score for one in served if one]
    known = any(score is not None for score in scores)
    return DeciderReplies(
        np.array([1.0 if score is None else score for score in scores]) if known else None,
        np.array([one.mode == "think" for one in replies]),
        Reply(own.right, own.one, own.tokens + spent, own.first, own.answer),
        np.where(drafted, own.tokens + spent, spent),
        np.where(drafted, own.first, 0.0),
    )
