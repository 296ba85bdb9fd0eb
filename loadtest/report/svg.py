"""The few marks that the report's plots are made of, as SVG text. Colours come from the page's style, by class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 380
HEIGHT: Final = 250
LEFT: Final = 48
RIGHT: Final = 10
TOP: Final = 26
BOTTOM: Final = 40

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels. `log` needs positive bounds; values below `low` are drawn at it."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: Sequence[str] = ()

    def at(self, value: float) -> float:
        value, low, high = max(value, self.low), self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.names:
            return [float(place) for place in range(len(self.names))]
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)

    def label(self, tick: float) -> str:
        return self.names[int(tick)] if self.names else short(tick)


def across(values: Iterable[float], log: bool = False) -> Scale:
    """A horizontal scale that holds all the values (and 0, unless logarithmic)."""
    return Scale(*bounds(values, log), LEFT, WIDTH - RIGHT, log)


def upward(values: Iterable[float], log: bool = False) -> Scale:
    return Scale(*bounds(values, log), HEIGHT - BOTTOM, TOP, log)


def named(names: Sequence[str]) -> Scale:
    """A horizontal scale with one place for each name: the values are 0, 1, 2, ..."""
    return Scale(-0.5, len(names) - 0.5, LEFT, WIDTH - RIGHT, names=names)


def bounds(values: Iterable[float], log: bool) -> tuple[float, float]:
    """The lowest and highest value to draw, with room, never equal."""
    found = [value for value in values if not log or value > 0]
    if log:
        return (min(found) / 1.3, max(found) * 1.3) if found else (1.0, 10.0)
    high = max([*found, 0.0])
    low = min([*found, 0.0])
    return (low, high + 0.05 * (high - low)) if high > low else (low, low + 1.0)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within the bounds."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with their doubles and fives if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def short(value: float) -> str:
    """As short as a tick's label wants it: 1500 is 1.5k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def plot(title: str, x: Scale, y: Scale, x_label: str, y_label: str, marks: Iterable[str]) -> str:
    """One figure: axes with round ticks, the marks, and what the axes are. `title` is read out by screen readers."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(f'<path class="grid" d="M{LEFT} {y.at(tick):.1f}H{WIDTH - RIGHT}"/>' for tick in y.ticks()),
        *(text(LEFT - 5, y.at(tick) + 4, y.label(tick), "end") for tick in y.ticks()),
        *(text(x.at(tick), HEIGHT - BOTTOM + 15, x.label(tick), "middle") for tick in x.ticks()),
        f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "label"),
        text(4, 12, y_label, "start", "label"),
        *marks,
        "</svg>",
    ]
    return "".join(parts)


def text(x: float, y: float, words: str, anchor: str = "start", style: str = "tick") -> str:
    return words and f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def dots(points: Iterable[Point], style: str) -> str:
    """Many equal dots in one element: strokes of no length with round ends."""
    drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f'<path class="dots {style}" d="{drawn}"/>' if drawn else ""


def line(points: Sequence[Point], style: str) -> str:
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="line {style}" d="M{drawn}"/>' if len(points) > 1 else ""


def strokes(spans: Iterable[tuple[float, float, float]], style: str, width: float) -> str:
    """Horizontal bars (from x, to x, at y) in one element."""
    drawn = "".join(f"M{start:.1f} {y:.1f}H{max(end, start + 0.4):.1f}" for start, end, y in spans)
    return f'<path class="bar {style}" stroke-width="{width:.2f}" d="{drawn}"/>' if drawn else ""


def whisker(x: float, low: float, high: float, style: str) -> str:
    """A vertical line from `low` to `high` (an interval, or a box plot's whisker)."""
    return f'<path class="line {style}" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'


def box(x: float, width: float, top: float, bottom: float, style: str) -> str:
    height = max(bottom - top, 0.8)
    return (
        f'<rect class="box {style}" x="{x - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def names(labelled: Iterable[tuple[float, float, str]]) -> list[str]:
    """A name beside each point (x, y, name): at the first of four corners where it meets neither an edge nor a name."""
    taken: list[tuple[float, float, float, float]] = []
    drawn = []
    for x, y, words in labelled:
        width = 5.5 * len(words)
        corners = [(x + 6, y - 5), (x - 6 - width, y - 5), (x + 6, y + 13), (x - 6 - width, y + 13)]
        free = [(left, base) for left, base in corners if _fits((left, base - 10, left + width, base), taken)]
        left, base = (free or corners)[0]
        taken.append((left, base - 10, left + width, base))
        drawn.append(text(left, base, words))
    return drawn


def _fits(area: tuple[float, float, float, float], taken: Iterable[tuple[float, float, float, float]]) -> bool:
    left, top, right, bottom = area
    inside = left > LEFT and right < WIDTH and top > TOP - 10 and bottom < HEIGHT - BOTTOM
    return inside and all(left > other[2] or right < other[0] or top > other[3] or bottom < other[1] for other in taken)


def key(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours mean, as HTML under a plot: (style, words)."""
    items = "".join(f'<li class="{style}">{escape(words)}</li>' for style, words in entries)
    return f'<ul class="key">{items}</ul>'
