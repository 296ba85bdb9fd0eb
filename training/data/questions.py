"""Questions, where they come from, and which side of the split they are on.

Training and test questions are disjoint by construction: `split_of` assigns every question *text* to one of the two,
whoever draws it and with whatever seed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol

from training.data.errors import UserError

Split = Literal["train", "test"]
TEST_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class TrainingQuestion:
    """What a user asks, with what is known of it.

    `thought` leads to `answer`, without tags; `direct` is what a reply without thinking says, `answer` where it is
    None. `earlier` are the messages before `text`. `chosen` and `rejected` are replies of which the first is better.
    `budget` and `limit` are numbers of tokens, for the methods that set or bound a reply's length. `origin` is where
    it was read, `entry` what its source needs to check a reply.
    """

    text: str
    thought: str = ""
    answer: str = ""
    difficulty: int = 0
    earlier: tuple[Mapping[str, Any], ...] = ()
    direct: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    budget: int | None = None
    limit: int | None = None
    origin: str = ""
    entry: Any = None

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        return [*self.earlier, {"role": "user", "content": self.text}]


class Task(Protocol):
    """A generator of questions. `difficulties` are the values of the knob that the task knows, easiest first."""

    @property
    def difficulties(self) -> range: ...

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        """A random question: its text, a thought that leads to the answer, and the answer."""
        ...

    def is_correct(self, text: str, answer: str) -> bool:
        """Whether `answer` answers the question `text`. Decided from the two alone, so any reply can be verified."""
        ...


class QuestionSource(Protocol):
    """Where a recipe's questions come from, and what their answers are worth."""

    def draw(self, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[TrainingQuestion]:
        """`count` questions, each of a difficulty drawn uniformly from the list (repeat one to weigh it)."""
        ...

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        """The worth of each answer, 1 for a right one. An answer that cannot be scored is an error, never a 0."""
        ...


class GeneratedQuestions:
    """The questions of a task, without end."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def draw(self, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[TrainingQuestion]:
        return draw_many(self.task, difficulties or self.task.difficulties, count, split, rng)

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        return [float(self.task.is_correct(question.text, answer)) for question, answer in answers]


class AnswerChecker(Protocol):
    """What scores the answers to questions that were read from a file; see `training.data.checkers`."""

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]: ...


class ReadQuestions:
    """A finite list of questions. Each is drawn once before any is drawn again."""

    def __init__(
        self, questions: Iterable[TrainingQuestion], checker: AnswerChecker, name: str, test_share: float
    ) -> None:
        self.checker, self.name = checker, name
        self.sides: dict[Split, list[TrainingQuestion]] = {"train": [], "test": []}
        for question in questions:
            self.sides[split_of(question.text, test_share)].append(question)
        self._decks: dict[tuple[Split, int | None], list[TrainingQuestion]] = {}

    def draw(self, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[TrainingQuestion]:
        return [self._next(split, rng.choice(difficulties) if difficulties else None, rng) for _ in range(count)]

    def _next(self, split: Split, difficulty: int | None, rng: Random) -> TrainingQuestion:
        deck = self._decks.setdefault((split, difficulty), [])
        if not deck:
            deck += [one for one in self.sides[split] if difficulty in (None, one.difficulty)]
            if not deck:
                of = "" if difficulty is None else f" of difficulty {difficulty}"
                raise UserError(f"{self.name} holds no {split} question{of}")
            rng.shuffle(deck)
        return deck.pop()

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        return self.checker.scores(answers)


def split_of(text: str, test_share: float = TEST_SHARE) -> Split:
    """The side a question belongs to: a hash of its text, so that about `test_share` of all questions are test."""
    first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return "test" if first < test_share * 2**32 else "train"


def draw(task: Task, difficulty: int, split: Split, rng: Random) -> TrainingQuestion:
    """A random question of one side: drawn again until it falls there."""
    if difficulty not in task.difficulties:
        raise UserError(f"difficulty {difficulty} is outside of the task's {task.difficulties}")
    while True:
        text, thought, answer = task.draw(difficulty, rng)
        if split_of(text) == split:
            return TrainingQuestion(text, thought, answer, difficulty)


def draw_many(task: Task, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[TrainingQuestion]:
    """`count` questions, each of a difficulty drawn uniformly from the list (repeat one to weigh it)."""
    return [draw(task, rng.choice(difficulties), split, rng) for _ in range(count)]
