"""Countdown: reach a target from three or four small numbers. The thought is a depth-first search with its dead ends.

    Use the numbers 2, 3 and 4 to make 14. Use each number once with + - * /.
    thought: Try 3*2=6, left 6 4 for 14. 6*4=24, 6+4=10, 6-4=2.

             Wait, not the target. Alternatively, 3+2=5, left 5 4 for 14. 5*4=20, 5+4=9, 5-4=1.

             Wait, not the target. Alternatively, 3-2=1, left 1 4 for 14. 4*1=4, 4+1=5, 4-1=3.

             Wait, that is too small. Another way: 4*3=12, left 12 2 for 14. 12+2=14.

             Let me check: 4*3=12, 12+2=14. Yes, that is the target. So the answer is (4*3)+2.
    answer:  (4*3)+2

A paragraph is one try: two numbers become one, what is left is set against the target, and when two are left every
result of them is written down. (Without the target in every paragraph a tiny model stopped at wrong results.) Its first
words say why the search turns: the last try failed (`Wait, …`), the same two numbers take another operator
(`Alternatively, …`), other numbers are taken (`Another way: …`), all that was left is used up (`Hold on, go back …`).
The search is poor on purpose: it takes pairs in random order and knows only to multiply first when the target is more
than the sum. How long it takes is luck, and a model that picks its pairs better thinks less.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from random import Random
from types import MappingProxyType

LEVELS: Mapping[int, tuple[int, int]] = MappingProxyType({1: (3, 9), 2: (3, 20), 3: (4, 9), 4: (4, 20)})
"""Difficulty to how many numbers there are, and the largest of them."""
TARGETS = range(10, 100)
"""The plain sum of the numbers is never asked for: every order of search finds it at once."""
BIGGEST = 99
"""Results above this are not pursued."""
TRIES = 14
"""A longer search is given up and its question drawn again. Three numbers never take more."""
QUESTION = re.compile(
    r"Use the numbers ((?:\d+, )*\d+) and (\d+) to make (\d+)\. Use each number once with \+ - \* /\."
)
OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
)
LONGEST_ANSWER = 64


class Countdown:
    """Difficulties 1 and 2: three numbers up to 9 and 20. Difficulties 3 and 4: four numbers up to 9 and 20."""

    difficulties = range(1, len(LEVELS) + 1)

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        count, largest = LEVELS[difficulty]
        while True:
            numbers = sorted(rng.randint(1, largest) for _ in range(count))
            target = _reachable(numbers, rng)
            if target not in TARGETS or target == sum(numbers):
                continue
            found = solve(numbers, target, rng)
            if found is not None:
                return ask(numbers, target), *found

    def is_correct(self, text: str, answer: str) -> bool:
        """Any expression that uses each number once and comes to the target, whatever its intermediate results."""
        match = QUESTION.fullmatch(text)
        if match is None:
            raise ValueError(f"not a question of this task: {text!r}")
        numbers = sorted(int(number) for number in [*match[1].split(", "), match[2]])
        try:
            tree = ast.parse(answer.strip()[: LONGEST_ANSWER + 1], mode="eval").body
            used, value = _worth(tree)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return False
        return len(answer.strip()) <= LONGEST_ANSWER and sorted(used) == numbers and value == int(match[3])


def ask(numbers: Sequence[int], target: int) -> str:
    """The question. The numbers stand in ascending order, so that no test question is a reordered training one."""
    *first, last = (str(number) for number in sorted(numbers))
    listed = f"{', '.join(first)} and {last}"
    return f"Use the numbers {listed} to make {target}. Use each number once with + - * /."


def solve(numbers: Sequence[int], target: int, rng: Random) -> tuple[str, str] | None:
    """The thought and the answer, or None where the search found nothing in `TRIES` tries."""
    search = _Search(target, rng)
    found = search.explore([_Part(number, str(number)) for number in numbers])
    if found is None:
        return None
    check = f"Let me check: {', '.join(found.steps)}. Yes, that is the target. So the answer is {found.text}."
    return "\n\n".join([*search.paragraphs, check]), found.text


def combine(left: int, sign: str, right: int) -> int | None:
    """One step of the search, `left` not below `right`: a whole number from 1 to `BIGGEST`, or None.

    Steps that change nothing (times 1, divided by 1) count as steps only as `*`.
    """
    if sign == "+":
        result = left + right
    elif sign == "-":
        result = left - right
    elif sign == "*":
        result = left * right
    else:
        result = left // right if right > 1 and left % right == 0 else 0
    return result if 0 < result <= BIGGEST else None


@dataclass(frozen=True, slots=True)
class _Part:
    """A number in hand: its value, the expression it came from, and the steps that made it."""

    value: int
    text: str
    steps: tuple[str, ...] = ()

    def inside(self) -> str:
        return f"({self.text})" if self.steps else self.text


@dataclass(slots=True)
class _Search:
    """A search under way, and what it has said so far. `turn` is why the last try ended, for the next one to say."""

    target: int
    rng: Random
    paragraphs: list[str] = field(default_factory=list)
    turn: str = ""
    tries: int = 0
    seen: set[tuple[int, ...]] = field(default_factory=set)

    def explore(self, parts: list[_Part]) -> _Part | None:
        """Depth-first: make one number of two, go on with what is left. None at a dead end, or out of tries."""
        if len(parts) == 2:
            return self._last(parts)
        opening, before = "Try ", None
        for pair, left in self._moves(parts):
            state = tuple(sorted(part.value for part in left))
            if state in self.seen:
                continue
            if self.tries == TRIES:
                return None
            self.seen.add(state)
            if before is not None:
                opening = "Alternatively, " if pair == before else "Another way: "
            self.paragraphs.append(f"{self.turn}{opening}{left[0].steps[-1]}, left {_listed(left)} for {self.target}.")
            self.turn, before = "", pair
            found = self.explore(left)
            if found is not None:
                return found
            if len(left) > 2:
                self.turn += f"Hold on, go back to {_listed(parts)}. "
        return None

    def _moves(self, parts: Sequence[_Part]) -> Iterator[tuple[tuple[int, int], list[_Part]]]:
        """Every way to make one number of two: the pair, and what is left, the new number first. Pairs at random."""
        pairs = list(combinations(range(len(parts)), 2))
        self.rng.shuffle(pairs)
        for i, j in pairs:
            rest = [part for k, part in enumerate(parts) if k not in (i, j)]
            for made in self._results(parts[i], parts[j]):
                yield (i, j), [made, *rest]

    def _last(self, parts: list[_Part]) -> _Part | None:
        """Two numbers are left: writes every result of them, up to the target, into the try's paragraph."""
        self.tries += 1
        tried: list[_Part] = []
        for made in self._results(*parts):
            tried.append(made)
            if made.value == self.target:
                break
        self.paragraphs[-1] += f" {', '.join(part.steps[-1] for part in tried)}."
        if tried[-1].value == self.target:
            return tried[-1]
        self.turn = _verdict([part.value for part in tried], self.target)
        return None

    def _results(self, one: _Part, other: _Part) -> Iterator[_Part]:
        """What two numbers can become: by `*` first where the target is more than their sum, else by `+` first."""
        left, right = (one, other) if one.value >= other.value else (other, one)
        for sign in "*+-/" if self.target > left.value + right.value else "+-*/":
            value = combine(left.value, sign, right.value)
            if value is not None:
                step = f"{left.value}{sign}{right.value}={value}"
                text = f"{left.inside()}{sign}{right.inside()}"
                yield _Part(value, text, (*left.steps, *right.steps, step))


def _verdict(results: Sequence[int], target: int) -> str:
    if max(results) < target:
        return "Wait, that is too small. "
    if min(results) > target:
        return "Wait, that is too big. "
    return "Wait, not the target. "


def _listed(parts: Sequence[_Part]) -> str:
    return " ".join(str(part.value) for part in parts)


def _reachable(numbers: Sequence[int], rng: Random) -> int:
    """What a random walk through `combine` makes of the numbers; 0 where it gets stuck."""
    left = list(numbers)
    while len(left) > 1:
        pair = sorted((left.pop(rng.randrange(len(left))) for _ in range(2)), reverse=True)
        made = combine(pair[0], rng.choice("+-*/"), pair[1])
        if made is None:
            return 0
        left.append(made)
    return left[0]


def _worth(tree: ast.expr) -> tuple[list[int], Fraction]:
    """The numbers in an expression, and its value. ValueError for anything but whole numbers and + - * /."""
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return [tree.value], Fraction(tree.value)
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        (left, x), (right, y) = _worth(tree.left), _worth(tree.right)
        return left + right, OPERATORS[type(tree.op)](x, y)
    raise ValueError("not an expression of whole numbers")
