"""Chained arithmetic again, with thoughts whose steps are written in full, in short, or bare.

    Start with 2, then a+4 b-2 c-8 d-7. What is the last digit?
    thought: 2 a+4=6 b=4 c=6 9      answer: 9

The chains have + and - alone. A step in full copies its operation from the question (5 tokens), a short one names only
its label (3), a bare one is its result alone (2): then the operation has to be found without a word about it. Fewer
tokens leave more to the head, so how much to write is a choice between length and certainty: the same question has
short and long right thoughts, which is what a budget needs. A writer has a pace, drawn for each thought: the share of
steps that are not written in full.
"""

from random import Random

from training.tasks.chain import Chain, apply, draw_chain, solve

OPERATORS = "+-"
STYLES = ("short", "bare")


class Paced(Chain):
    """Chain's questions and answers, difficulty d a chain of d steps; the pace is uniform from 0 to 1."""

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        start, steps, text = draw_chain(difficulty, rng, OPERATORS)
        return text, write(start, steps, rng.random(), rng), solve(start, steps)[1]


def write(start: int, steps: list[str], pace: float, rng: Random) -> str:
    """A thought over `steps` (each like `a+3`) from `start`; a step is not in full with probability `pace`."""
    value, said = start, [str(start)]
    for step in steps:
        value = apply(value, step[1], int(step[2]))
        style = rng.choice(STYLES) if rng.random() < pace else "full"
        said.append({"full": f"{step}={value}", "short": f"{step[0]}={value}", "bare": str(value)}[style])
    return " ".join(said)
