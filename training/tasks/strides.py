"""Chained arithmetic again, with thoughts that take one, two or three steps of the chain at a stride.

    Start with 2, then a+4 b-2 c-8 d-7. What is the last digit?
    thought: 2 a+4=6 bc=6 d-7=9      answer: 9

The chains have + and - alone. A single step is copied and looked up; a longer stride names its labels and does their
steps in the head. Long strides save tokens and are harder, so how much to write is a choice between length and
certainty: the same question has short and long right thoughts, which is what a budget needs. A writer has a pace,
drawn for each thought: the share of strides that are longer than one. Nothing is written that could be left out at
the same pace.
"""

from random import Random

from training.tasks.chain import Chain, apply, draw_chain, solve

LONGEST = 3
OPERATORS = "+-"


class Strides(Chain):
    """Chain's questions and answers, difficulty d a chain of d steps; the pace is uniform from 0 to 1."""

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        start, steps, text = draw_chain(difficulty, rng, OPERATORS)
        return text, stride(start, steps, rng.random(), rng), solve(start, steps)[1]


def stride(start: int, steps: list[str], pace: float, rng: Random) -> str:
    """A thought over `steps` (each like `a*3`) from `start`; a stride is longer than one with probability `pace`."""
    value, said, done = start, [str(start)], 0
    while done < len(steps):
        length = rng.randint(2, LONGEST) if rng.random() < pace else 1
        taken = steps[done : done + length]
        for step in taken:
            value = apply(value, step[1], int(step[2]))
        name = taken[0] if len(taken) == 1 else "".join(step[0] for step in taken)
        said.append(f"{name}={value}")
        done += len(taken)
    return " ".join(said)
