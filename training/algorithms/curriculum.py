"""Which difficulty the next question has: by how differently the replies to earlier ones of it earned."""

from collections.abc import Sequence
from itertools import groupby
from random import Random
from statistics import pstdev
from typing import overload

from training.config.sections import CurriculumSection
from training.data.errors import UserError
from training.data.questions import QuestionSource, TrainingQuestion


class Curriculum(Sequence[TrainingQuestion]):
    """`length` questions, each drawn when it is first asked for, and the same from then on."""

    def __init__(
        self, settings: CurriculumSection, source: QuestionSource, difficulties: Sequence[int], length: int, seed: int
    ) -> None:
        if len(set(difficulties)) < 2:
            raise UserError("a curriculum needs several data.difficulties")
        self.settings, self.source, self.length, self.seed = settings, source, length, seed
        self.weights = dict.fromkeys(sorted(set(difficulties)), 1.0)
        self._drawn: dict[int, TrainingQuestion] = {}

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> TrainingQuestion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrainingQuestion]: ...
    def __getitem__(self, index: int | slice) -> TrainingQuestion | Sequence[TrainingQuestion]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        if not 0 <= index < self.length:
            raise IndexError(index)
        if index not in self._drawn:
            rng = Random(f"{self.seed}:{index}")
            (difficulty,) = rng.choices(list(self.weights), list(self.weights.values()))
            (self._drawn[index],) = self.source.draw([difficulty], 1, "train", rng)
        return self._drawn[index]

    def observe(self, indices: Sequence[int], rewards: Sequence[float]) -> None:
        """Takes in what the replies to questions earned; replies to one question stand together."""
        rate, floor = self.settings.rate, self.settings.floor
        for index, group in groupby(zip(indices, rewards, strict=True), key=lambda pair: pair[0]):
            difficulty = self[index].difficulty
            spread = max(floor, pstdev(reward for _, reward in group))
            self.weights[difficulty] += rate * (spread - self.weights[difficulty])
