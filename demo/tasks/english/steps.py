"""Arithmetic written out so that a small model can follow it: one look-up in a table at a time.

    347+285
    7+5=12:2
    4+8+1=13:32
    3+2+1=6:632

Larger sums go digit by digit from the right; behind the colon stands what is found of the result so far. What a child
knows by heart (3*4=12) is one line. An expression with several operations is the expression, then each of them.
"""

import ast
from collections.abc import Mapping

BY_HEART = 20
TABLE = 10
SIGNS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class NotWhole(ValueError):
    """A step would leave the whole numbers that are not negative."""


def work(formula: str, values: Mapping[str, int]) -> tuple[str, int]:
    """The thought and the value of a formula such as `a*4+b`. NotWhole where a step is negative or a fraction."""
    tree = ast.parse(formula, mode="eval").body
    lines: list[str] = []
    value = _work(tree, values, lines)
    if sum(isinstance(node, ast.BinOp) for node in ast.walk(tree)) > 1:
        lines.insert(0, _spelled(tree, values))
    return "\n".join(lines), value


def _work(node: ast.expr, values: Mapping[str, int], lines: list[str]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if not isinstance(node, ast.BinOp):
        raise ValueError(f"not arithmetic: {ast.unparse(node)}")
    left, right = _work(node.left, values, lines), _work(node.right, values, lines)
    value, written = step(left, SIGNS[type(node.op)], right)
    lines += written
    return value


def _spelled(node: ast.expr, values: Mapping[str, int]) -> str:
    text = ast.unparse(node).replace(" ", "")
    return "".join(str(values.get(character, character)) for character in text)


def step(a: int, sign: str, b: int) -> tuple[int, list[str]]:
    """One operation: its value and its lines."""
    if sign == "+":
        return a + b, [f"{a}+{b}={a + b}"] if _by_heart(a, b, a + b) else [f"{a}+{b}", *_add(a, b)]
    if sign == "-":
        if b > a:
            raise NotWhole(f"{a}-{b}")
        return a - b, [f"{a}-{b}={a - b}"] if a <= BY_HEART or b == 0 else [f"{a}-{b}", *_subtract(a, b)]
    if sign == "*":
        if max(a, b) <= TABLE or min(a, b) in (0, 1, 10, 100) or max(a, b) in (10, 100):
            return a * b, [f"{a}*{b}={a * b}"]
        small, large = sorted((a, b), key=lambda factor: (len(_parts(factor)), factor))
        return a * b, _multiply(large, small)
    if b == 0 or a % b:
        raise NotWhole(f"{a}/{b}")
    if a == 100 or b in (1, 10, 100) or (b <= TABLE and a // b <= TABLE):
        return a // b, [f"{a}/{b}={a // b}"]
    if b > TABLE:
        return a // b, [f"{a}/{b}", f"{b}*{a // b}={a}:{a // b}"]
    return a // b, [f"{a}/{b}", *_divide(a, b)]


def _by_heart(a: int, b: int, total: int) -> bool:
    return total <= BY_HEART or 0 in (a, b)


def _digits(number: int) -> list[int]:
    """The digits from the right."""
    return [int(digit) for digit in reversed(str(number))]


def _add(a: int, b: int) -> list[str]:
    lines, found, carry = [], "", 0
    top, bottom = _digits(a), _digits(b)
    for place in range(max(len(top), len(bottom))):
        terms = [*top[place : place + 1], *bottom[place : place + 1], *([carry] if carry else [])]
        total = sum(terms)
        last = place == max(len(top), len(bottom)) - 1
        found = f"{total if last else total % 10}{found}"
        carry = total // 10
        said = "+".join(map(str, terms))
        lines.append(f"{said}={total}:{found}" if len(terms) > 1 else f"{said}:{found}")
    return lines


def _subtract(a: int, b: int) -> list[str]:
    """A borrowed ten stands before its digit; the next column gives it back as -1."""
    lines, found, borrowed = [], "", 0
    top, bottom = _digits(a), _digits(b)
    for place, digit in enumerate(top):
        below = bottom[place] if place < len(bottom) else 0
        terms = [*([borrowed] if borrowed else []), *([below] if place < len(bottom) else [])]
        borrows = digit < sum(terms)
        value = digit + 10 * borrows - sum(terms)
        found = f"{value}{found}"
        shown = str(int(found)) if place == len(top) - 1 else found
        said = "-".join(map(str, [digit + 10 * borrows, *terms]))
        lines.append(f"{said}={value}:{shown}" if terms else f"{said}:{shown}")
        borrowed = int(borrows)
    return lines


def _parts(number: int) -> list[int]:
    """347 is 7, 40 and 300."""
    return [digit * 10**place for place, digit in enumerate(_digits(number)) if digit]


def _multiply(large: int, small: int) -> list[str]:
    """By one digit at a time; each part of a longer factor is worked out alone, then they are added."""
    parts = _parts(small)
    lines = [] if len(parts) == 1 else [f"{large}*{small}"]
    total = 0
    for part in parts:
        lines += [f"{large}*{part}", *_times_digit(large, part)]
        if total:
            lines += step(total, "+", large * part)[1]
        total += large * part
    return lines


def _times_digit(number: int, part: int) -> list[str]:
    """`part` is one digit with zeros behind it: the zeros are written at the end."""
    zeros = "0" * (len(str(part)) - 1)
    digit, lines, found, carry = int(str(part)[0]), [], "", 0
    top = _digits(number)
    for place, one in enumerate(top):
        product = one * digit
        total = product + carry
        last = place == len(top) - 1
        found = f"{total if last else total % 10}{found}"
        said = f"{one}*{digit}+{carry}={product}+{carry}={total}" if carry else f"{one}*{digit}={total}"
        lines.append(f"{said}:{found}{zeros if last else ''}")
        carry = total // 10
    return lines


def _divide(a: int, b: int) -> list[str]:
    lines, found, rest = [], "", 0
    for digit in str(a):
        rest = 10 * rest + int(digit)
        if not found and rest < b:
            continue
        quotient, left = divmod(rest, b)
        found += str(quotient)
        lines.append(f"{rest}/{b}={quotient}{f' r{left}' if left else ''}:{found}")
        rest = left
    return lines
