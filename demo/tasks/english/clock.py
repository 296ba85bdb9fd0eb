"""Times of day and lengths of time, in minutes, written out like the rest of the arithmetic."""

from collections.abc import Callable, Mapping

from demo.tasks.english.numerals import HALF_DAY, HOUR
from demo.tasks.english.steps import NotWhole

Solved = tuple[str, int]


def later(values: Mapping[str, int]) -> Solved:
    """The time `b` minutes after the time `a`."""
    a, b = values["a"], values["b"]
    hours, minutes = divmod(a, HOUR)
    more_hours, more_minutes = divmod(b, HOUR)
    total = minutes + more_minutes
    lines = [f"{hours}:{minutes:02}+{more_hours}:{more_minutes:02}", f"{minutes}+{more_minutes}={total}"]
    carry, hour = total // HOUR, hours + more_hours + total // HOUR
    if carry:
        lines.append(f"{total}-{HOUR}={total - HOUR}")
    lines.append("+".join(map(str, [hours, more_hours, *([1] if carry else [])])) + f"={hour}")
    if hour > HALF_DAY // HOUR:
        lines.append(f"{hour}-12={hour - 12}")
    return "\n".join(lines), (hour * HOUR + total % HOUR)


def earlier(values: Mapping[str, int]) -> Solved:
    """The time `b` minutes before the time `a`."""
    a, b = values["a"], values["b"]
    if b >= a - HOUR:
        raise NotWhole(f"{a}-{b}")
    lines, minutes, hours = _difference(a, b)
    return "\n".join(lines), hours * HOUR + minutes


def between(values: Mapping[str, int]) -> Solved:
    """The minutes from the time `a` to the time `b`, which may be past noon."""
    a, b = values["a"], values["b"]
    if a == b:
        raise NotWhole(f"{b}-{a}")
    begun = [] if b > a else [f"{b // HOUR}+12={b // HOUR + 12}"]
    lines, minutes, hours = _difference(b if b > a else b + HALF_DAY, a)
    return "\n".join([*begun, *lines]), hours * HOUR + minutes


def _difference(late: int, early: int) -> tuple[list[str], int, int]:
    hours, minutes = divmod(late, HOUR)
    off_hours, off_minutes = divmod(early, HOUR)
    lines = [f"{hours}:{minutes:02}-{off_hours}:{off_minutes:02}"]
    borrows = minutes < off_minutes
    if borrows:
        lines.append(f"{minutes}+{HOUR}={minutes + HOUR}")
    found = minutes + HOUR * borrows - off_minutes
    lines.append(f"{minutes + HOUR * borrows}-{off_minutes}={found}")
    lines.append("-".join(map(str, [hours, off_hours, *([1] if borrows else [])])) + f"={hours - off_hours - borrows}")
    return lines, found, hours - off_hours - borrows


FORMULAS: Mapping[str, Callable[[Mapping[str, int]], Solved]] = {
    "later": later,
    "earlier": earlier,
    "between": between,
}
