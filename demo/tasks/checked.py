"""Chained arithmetic again, with thoughts that check themselves for as long as they have patience.

    Start with 2, then a*3 b-2 c-8 d-7. What is the last digit?
    thought: 2 a*3=6 b-2=5 c-8=7 d-7=0.
             Check: 2 a*3=6 b-2=4 c-8=6 d-7=9.
             Check: 2 a*3=6 b-2=4                    answer: 9

A run does the whole chain from the start and ends with a full stop. A check is another run; it may stop anywhere as
long as it agrees with the one before it; once it does not, it goes on to its end and is checked whole in its turn. The
last whole run gives the answer.
Writers slip now and then, as people do, so checks find something; how many steps are checked is a matter of patience
alone. Fewer tokens come from an earlier commitment to the answer, and cost what the checks would have found: that is
what a budget trades. Every thought leads to the right answer: others are drawn again.
"""

from random import Random

from demo.tasks.chain import Chain, apply, draw_chain, solve

SLIP = 0.02
"""The probability of a wrong result, for each step written."""
PATIENCE = 5
"""At most so many times the chain's length is checked; how many steps is uniform from 0 on."""


class Checked(Chain):
    """Chain's questions and answers, difficulty d a chain of d steps; the patience is uniform."""

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        start, steps, text = draw_chain(difficulty, rng)
        answer, found, thought = solve(start, steps)[1], "", ""
        while found != answer:
            thought, found = write(start, steps, rng.randint(0, PATIENCE * difficulty), rng)
        return text, thought, answer


def write(start: int, steps: list[str], patience: int, rng: Random, slip: float = SLIP) -> tuple[str, str]:
    """A thought over `steps` (each like `a+3`) from `start`, and the answer it leads to. At least `patience` steps are
    checked, more only where a check finds something."""
    standard = _results(start, steps, slip, rng)
    runs = [_run(start, steps, standard)]
    while patience > 0:
        results = _results(start, steps, slip, rng)
        reach = min(patience, len(steps))
        patience -= reach
        if results[:reach] != standard[:reach]:
            reach, standard = len(steps), results
            patience = max(patience, reach)
        runs.append(_run(start, steps[:reach], results))
    return "\nCheck: ".join(runs), str(standard[-1])


def _results(start: int, steps: list[str], slip: float, rng: Random) -> list[int]:
    """What one run finds; it goes on from a slip as from any result."""
    value, found = start, []
    for step in steps:
        value = apply(value, step[1], int(step[2]))
        if rng.random() < slip:
            value = (value + rng.randint(1, 9)) % 10
        found.append(value)
    return found


def _run(start: int, steps: list[str], results: list[int]) -> str:
    said = " ".join([str(start), *(f"{step}={result}" for step, result in zip(steps, results, strict=False))])
    return said + "." * (len(steps) == len(results))
