"""Replies that a model gave, kept with their scores: one JSON line each, whoever drew them and for whatever use.

Rejection-sampled and preference data, SelfBudgeter's b_max and a decider's calibration are all made of such lines. The
question's columns are those of any data file, so that the file can be read as questions too.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from models.engines.base import Tokenizer
from models.formats.reasoning import Mode
from training.config.sections import Way
from training.data.errors import UserError
from training.data.files import question_of
from training.data.questions import TrainingQuestion

EDGES = (0.05, 0.95)
"""Budgets are pre-filled between these shares of the base's lengths: beyond them hardly any reply was trained."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a route told of a reply. `decider` is the route whose decider chose, where one was asked; `score` is what it
    found, `decision_tokens` were generated for it alone, and `drafted` says that it held the reply back while it chose.
    The first text, the answer's first and the end came so many seconds after the request."""

    decider: str | None
    score: float | None
    decision_tokens: int
    drafted: bool
    first: float
    answer: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SampledReply:
    """One reply. `asked` and `budget` are what was asked for, None where the model was free; `mode` is what came of it.

    `tokens` is its length, `token_ids` its tokens without the end of turn where whoever drew it had them.
    """

    question: TrainingQuestion
    asked: Mode | None
    mode: Mode | None
    budget: int | None
    thinking: str
    reply: str
    tokens: int
    complete: bool
    score: float
    token_ids: tuple[int, ...] | None = None
    served: Served | None = None

    @property
    def way(self) -> Way:
        return Way(self.asked, self.budget, self.served.decider if self.served else None)

    @property
    def right(self) -> bool:
        return self.complete and self.score == 1

    @property
    def worth(self) -> tuple[float, int]:
        """What makes one reply better than another: its score, then fewer tokens."""
        return (self.score if self.complete else 0.0), -self.tokens

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """Its tokens, encoded anew where they were not kept."""
        return tokenizer.encode(self.thinking + self.reply) if self.token_ids is None else list(self.token_ids)

    def line(self) -> str:
        question = self.question
        asked: dict[str, Any] = {"messages": question.messages} if question.earlier else {"prompt": question.text}
        row = {
            **asked,
            **({"answer": question.answer} if question.answer else {}),
            "difficulty": question.difficulty,
            "asked": self.asked,
            "mode": self.mode,
            "budget": self.budget,
            "reasoning": self.thinking,
            "reply": self.reply,
            "tokens": self.tokens,
            "complete": self.complete,
            "score": self.score,
            **({} if self.token_ids is None else {"token_ids": self.token_ids}),
            **({} if self.served is None else {"served": asdict(self.served)}),
        }
        return json.dumps(row, ensure_ascii=False) + "\n"


def read_samples(path: Path) -> list[SampledReply]:
    """The replies of a file. UserError names the line that is none; a line that a killed run broke off is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return [_sample(line, f"{path}:{number}") for number, line in enumerate(lines[:-1], 1) if line.strip()]


def _sample(line: str, origin: str) -> SampledReply:
    try:
        row = json.loads(line)
        ids, served = row.get("token_ids"), row.get("served")
        return SampledReply(
            question=question_of(row, {}, origin),
            asked=row["asked"],
            mode=row["mode"],
            budget=row["budget"],
            thinking=row["reasoning"],
            reply=row["reply"],
            tokens=int(row["tokens"]),
            complete=bool(row["complete"]),
            score=float(row["score"]),
            token_ids=None if ids is None else tuple(ids),
            served=None if served is None else Served(**served),
        )
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{origin}: not what `sample` writes: {error!r}") from error


def by_question(samples: Iterable[SampledReply]) -> list[list[SampledReply]]:
    """The replies to each question together, in the order of the questions' first replies."""
    groups: dict[str, list[SampledReply]] = {}
    for one in samples:
        groups.setdefault(json.dumps(one.question.messages), []).append(one)
    return list(groups.values())


def budget_ranges(samples: Sequence[SampledReply]) -> dict[int, tuple[int, int]]:
    """By difficulty, the lengths between which nine in ten of the right replies lie: the trained budgets."""
    right = sorted((one.question.difficulty, one.tokens) for one in samples if one.right)
    groups = {difficulty: [n for _, n in group] for difficulty, group in groupby(right, key=lambda pair: pair[0])}
    low, high = EDGES
    return {d: (found[int(low * (len(found) - 1))], found[int(high * (len(found) - 1))]) for d, found in groups.items()}
