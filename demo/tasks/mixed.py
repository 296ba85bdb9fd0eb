"""Two tasks in one, for a model whose direct answers are anything from sure to hopeless.

Difficulties 1 to 4 are chains of as many steps: the first is answered at sight, the others only by thinking. 5 and 6
are countdown's with three numbers, up to 9 and up to 20: a guess is right now and then, and the thoughts are long.
"""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from demo.tasks import chain, countdown
from training.data.questions import Task

CHAIN, COUNTDOWN = chain.Chain(), countdown.Countdown()
LEVELS: Mapping[int, tuple[Task, int]] = MappingProxyType(
    {1: (CHAIN, 1), 2: (CHAIN, 2), 3: (CHAIN, 3), 4: (CHAIN, 4), 5: (COUNTDOWN, 1), 6: (COUNTDOWN, 2)}
)


class Mixed:
    """Each difficulty is one of another task."""

    difficulties = range(1, len(LEVELS) + 1)

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        task, level = LEVELS[difficulty]
        return task.draw(level, rng)

    def is_correct(self, text: str, answer: str) -> bool:
        return (CHAIN if chain.QUESTION.fullmatch(text) else COUNTDOWN).is_correct(text, answer)
