"""Chained arithmetic on last digits: the difficulty is the number of steps.

    Start with 2, then a*3 b-2 c-8 d-7. What is the last digit?
    thought: 2 a*3=6 b-2=4 c-8=6 d-7=9      answer: 9

Every step acts modulo 10: +b and -b with b in 1..9, *b with b in 3, 7, 9 (the factors that lose nothing). The labels
a, b, c, … make each step of the thought a copy from the question and one look-up. A thought of depth d takes 5 d + 1
tokens of the demo tokenizer. A model of a million parameters answers depth 1 at sight, and deeper chains only by
thinking: one task, and the right mode depends on the question.
"""

import re
from random import Random
from string import ascii_lowercase

FACTORS = (3, 7, 9)
QUESTION = re.compile(r"Start with (\d), then ((?:[a-z][-+*]\d ?)+)\. What is the last digit\?")


class Chain:
    """Difficulty d is a chain of d steps."""

    difficulties = range(1, len(ascii_lowercase) + 1)

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        start, steps, text = draw_chain(difficulty, rng)
        return text, *solve(start, steps)

    def is_correct(self, text: str, answer: str) -> bool:
        match = QUESTION.fullmatch(text)
        if match is None:
            raise ValueError(f"not a question of this task: {text!r}")
        return answer.strip() == solve(int(match[1]), match[2].split())[1]


def draw_chain(length: int, rng: Random, operators: str = "+-*") -> tuple[int, list[str], str]:
    """A random question: the digit it starts with, its steps (each like `a*3`), and its text."""
    start = rng.randrange(10)
    steps = [_draw_step(label, rng, operators) for label in ascii_lowercase[:length]]
    return start, steps, f"Start with {start}, then {' '.join(steps)}. What is the last digit?"


def _draw_step(label: str, rng: Random, operators: str) -> str:
    operator = rng.choice(operators)
    return f"{label}{operator}{rng.choice(FACTORS) if operator == '*' else rng.randint(1, 9)}"


def solve(start: int, steps: list[str]) -> tuple[str, str]:
    """The thought and the answer of a chain whose steps read like `a*3`."""
    value, thought = start, [str(start)]
    for step in steps:
        value = apply(value, step[1], int(step[2]))
        thought.append(f"{step}={value}")
    return " ".join(thought), str(value)


def apply(value: int, operator: str, operand: int) -> int:
    """One step, modulo 10."""
    if operator == "+":
        return (value + operand) % 10
    if operator == "-":
        return (value - operand) % 10
    return value * operand % 10
