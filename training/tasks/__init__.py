"""Tasks: questions with a verifiable answer, a thought that leads to it, and a knob for difficulty.

A new task is one file with a class that fits `Task`, and one line in `TASKS`. Training and test questions are disjoint
by construction: `split_of` assigns every question *text* to one of the two, whoever draws it and with whatever seed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Literal, Protocol

from training.tasks.chain import Chain
from training.tasks.checked import Checked
from training.tasks.countdown import Countdown
from training.tasks.english import English
from training.tasks.judging import Judging

Split = Literal["train", "test"]
TEST_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Question:
    """One question as the user asks it. `thought` is a thought that leads to `answer`, without tags."""

    text: str
    thought: str
    answer: str
    difficulty: int


class Task(Protocol):
    """A source of questions. `difficulties` are the values of the knob that the task knows, easiest first."""

    @property
    def difficulties(self) -> range: ...

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        """A random question: its text, a thought that leads to the answer, and the answer."""
        ...

    def is_correct(self, text: str, answer: str) -> bool:
        """Whether `answer` answers the question `text`. Decided from the two alone, so any reply can be verified."""
        ...


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "chain": Chain(),
        "checked": Checked(),
        "countdown": Countdown(),
        "english": English(),
        "judging": Judging(),
    }
)


def split_of(text: str) -> Split:
    """The side a question belongs to: a hash of its text, so that about `TEST_SHARE` of all questions are test."""
    first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return "test" if first < TEST_SHARE * 2**32 else "train"


def draw(task: Task, difficulty: int, split: Split, rng: Random) -> Question:
    """A random question of one side: drawn again until it falls there."""
    if difficulty not in task.difficulties:
        raise ValueError(f"difficulty {difficulty} is outside of the task's {task.difficulties}")
    while True:
        text, thought, answer = task.draw(difficulty, rng)
        if split_of(text) == split:
            return Question(text, thought, answer, difficulty)


def draw_many(task: Task, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[Question]:
    """`count` questions, each of a difficulty drawn uniformly from the list (repeat one to weigh it)."""
    return [draw(task, rng.choice(difficulties), split, rng) for _ in range(count)]
