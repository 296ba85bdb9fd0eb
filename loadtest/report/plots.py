"""The report's plots: records or figures in, SVG with a caption out, or None where there is nothing to show."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from loadtest.analysis import measures
from loadtest.analysis.comparison import FigureRatio
from loadtest.analysis.summary import AccuracyFront, ReplyGroup, Summary
from loadtest.records import RequestRecord, RunResult
from loadtest.report import svg

T = TypeVar("T")
_MOST_DOTS: Final = 1500
_MOST_BARS: Final = 90
_COLOURS: Final = ("s1", "s2", "s3", "s5")
_LATENCIES: Final = (
    ("s1", "time_to_first_token_ms", "first token"),
    ("s2", "time_to_first_output_token_ms", "first answer token"),
    ("s3", "request_latency_ms", "whole reply"),
)


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    drawing: str
    caption: str


def latency_over_load(summaries: Sequence[Summary]) -> Plot | None:
    """A line for each latency over the load that was offered at each level of a sweep."""
    words, load = _load(summaries)
    levels = sorted((one for one in summaries if one.succeeded), key=load)
    if len(levels) < 2:
        return None
    x = svg.across(load(level) for level in levels)
    shown = [(style, name, words) for style, name, words in _LATENCIES if all(name in one.measures for one in levels)]
    y = svg.upward(
        (value for one in levels for _, name, _ in shown for value in (one.measures[name].p50, one.measures[name].p99)),
        log=True,
    )
    marks = []
    for style, name, _ in shown:
        p50 = [(x.at(load(one)), y.at(one.measures[name].p50)) for one in levels]
        p99 = [(x.at(load(one)), y.at(one.measures[name].p99)) for one in levels]
        marks += [svg.line(p50, style), svg.dots(p50, style), svg.line(p99, f"{style} dashed")]
    drawing = svg.plot("Latency over load", x, y, words, "milliseconds", marks)
    legend = svg.key([(style, label) for style, _, label in shown])
    return Plot("Latency over load", drawing + legend, "Solid: median. Dashed: 99th percentile. One dot a run.")


def _load(summaries: Sequence[Summary]) -> tuple[str, Callable[[Summary], float]]:
    """What all levels have: the rate asked for, else the concurrency asked for, else the rate that was reached."""
    if all(one.rate is not None for one in summaries):
        return "requests per second, offered", lambda one: one.rate or 0.0
    if all(one.concurrency is not None for one in summaries):
        return "requests at a time", lambda one: one.concurrency or 0.0
    return "requests per second, reached", lambda one: one.requests_per_second


def latency_in_flight(records: Sequence[RequestRecord]) -> Plot | None:
    """One run alone: each reply's latency over the requests that were under way when it started."""
    done = [record for record in records if record.error is None]
    if not done:
        return None
    starts, ends = sorted(one.start_ns for one in records), sorted(one.end_ns for one in records)
    load = {one.start_ns: bisect_right(starts, one.start_ns) - bisect_left(ends, one.start_ns) for one in done}
    shown = thinned(done, _MOST_DOTS)
    x = svg.across(float(count) for count in load.values())
    y = svg.upward([(one.end_ns - one.start_ns) / 1e6 for one in done])
    points = [(x.at(load[one.start_ns]), y.at((one.end_ns - one.start_ns) / 1e6)) for one in shown]
    drawing = svg.plot(
        "Latency over load", x, y, "requests in flight at the start", "milliseconds", [svg.dots(points, "s3 faint")]
    )
    return Plot("Latency over load", drawing, f"End-to-end latency of each reply{_of(shown, done)}.")


def accuracy_over(
    groups: Sequence[ReplyGroup], best: AccuracyFront | None, cost: str, words: str, unit: str
) -> Plot | None:
    """A dot with its interval for each variant; the front joins those that no other variant beats."""
    known = [(group, group.accuracy, getattr(group, cost)) for group in groups]
    points = [(figures.mean, share, group.name) for group, share, figures in known if share and figures]
    if not points or best is None:
        return None
    x = svg.across(value for value, *_ in points)
    y = svg.Scale(0, 100, svg.HEIGHT - svg.BOTTOM, svg.TOP)
    marks = [svg.line([(x.at(value), y.at(100 * accuracy)) for value, accuracy in best.points], "s4 dashed")]
    told_by_colour = len(points) <= len(_COLOURS)  # names at the points would meet where few are close together
    styles = _COLOURS if told_by_colour else ("s1",) * len(points)
    for style, (value, share, _) in zip(styles, points, strict=False):
        marks += [
            svg.whisker(x.at(value), y.at(100 * share.low), y.at(100 * share.high), style),
            svg.dots([(x.at(value), y.at(100 * share.value))], f"{style} large"),
        ]
    if not told_by_colour:
        marks += svg.names([(x.at(value), y.at(100 * share.value), name) for value, share, name in points])
    title = f"Accuracy against {words}"
    drawing = svg.plot(title, x, y, f"{unit} of a reply, mean", "correct, %", marks)
    if told_by_colour:
        drawing += svg.key([(style, name) for style, (*_, name) in zip(styles, points, strict=False)])
    return Plot(title, drawing, "Bars: 95 % interval (Wilson). Dashed: the front, what no other variant beats.")


def budget_asked_used(records: Sequence[RequestRecord]) -> Plot | None:
    pairs = [
        (asked, used, measures.was_cut(record))
        for record in records
        if (asked := measures.budget_asked(record)) is not None and (used := measures.budget_used(record)) is not None
    ]
    if not pairs:
        return None
    shown = thinned(pairs, _MOST_DOTS)
    everything = [max(1.0, value) for asked, used, _ in pairs for value in (asked, used)]
    log = max(everything) / min(everything) > 20
    x, y = svg.across(everything, log), svg.upward(everything, log)
    ends = [(x.at(end), y.at(end)) for end in (max(x.low, y.low), min(x.high, y.high))]
    marks = [svg.line(ends, "s4 dashed")]
    for style, wanted in (("s1 faint", False), ("s2 faint", True)):
        marks.append(svg.dots([(x.at(asked), y.at(used)) for asked, used, cut in shown if cut is wanted], style))
    drawing = svg.plot("Budget asked against used", x, y, "tokens asked", "tokens used", marks)
    legend = svg.key([("s1", "ended by itself"), ("s2", "cut")])
    zero = " 0 is drawn as 1." if log and any(not used or not asked for asked, used, _ in pairs) else ""
    return Plot(
        "Budget asked against used", drawing + legend, f"Dashed: used = asked.{zero}{_of(shown, pairs, '. Dots: ')}"
    )


def thinking_by_difficulty(groups: Sequence[ReplyGroup]) -> Plot | None:
    known = [(group.name, figures) for group in groups if (figures := group.reasoning_tokens) is not None]
    if len(known) < 2:
        return None
    x, y = svg.named([name for name, _ in known]), svg.upward(figures.max for _, figures in known)
    width = min(26.0, 0.6 * (svg.WIDTH - svg.LEFT) / len(known))
    marks = []
    for place, (_, figures) in enumerate(known):
        at = x.at(place)
        marks += [
            svg.whisker(at, y.at(figures.min), y.at(figures.p25), "s1"),
            svg.whisker(at, y.at(figures.p90), y.at(figures.max), "s1"),
            svg.box(at, width, y.at(figures.p90), y.at(figures.p25), "s1"),
            svg.strokes([(at - width / 2, at + width / 2, y.at(figures.p50))], "s2", 2.5),
        ]
    drawing = svg.plot("Thinking by difficulty", x, y, "difficulty", "reasoning tokens", marks)
    return Plot(
        "Thinking by difficulty", drawing, "Line: median. Box: 25th to 90th percentile. Whisker: least to most."
    )


def time_line(result: RunResult) -> Plot | None:
    """A bar a request, in the order of their starts: waiting, thinking, answering."""
    shown = thinned(sorted(result.records, key=lambda record: record.start_ns), _MOST_BARS)
    if not shown:
        return None
    last_ns = max(record.end_ns for record in shown)
    x = svg.across([(last_ns - result.start_ns) / 1e9])
    y = svg.Scale(0, len(shown), svg.TOP, svg.HEIGHT - svg.BOTTOM, names=[""])
    spans: dict[str, list[tuple[float, float, float]]] = {"s4": [], "s1": [], "s2": [], "s5": []}
    for place, record in enumerate(shown):
        for style, start_ns, end_ns in _phases(record):
            start, end = (x.at((moment - result.start_ns) / 1e9) for moment in (start_ns, end_ns))
            spans[style].append((start, end, y.at(place + 0.5)))
    thickness = min(6.0, 0.8 * (svg.HEIGHT - svg.BOTTOM - svg.TOP) / len(shown))
    marks = [svg.strokes(bars, style, thickness) for style, bars in spans.items()]
    drawing = svg.plot("Time line", x, y, "seconds", "requests, by start", marks)
    legend = svg.key([("s4", "waiting"), ("s1", "thinking"), ("s2", "answering"), ("s5", "failed")])
    return Plot("Time line", drawing + legend, f"{result.arrivals}{_of(shown, result.records, '. Bars: ')}.")


def _phases(record: RequestRecord) -> list[tuple[str, int, int]]:
    if record.error is not None:
        return [("s5", record.start_ns, record.end_ns)]
    first, thinking, answer = record.first_ns(), record.first_ns("reasoning"), record.first_ns("answer")
    begins = [("s4", record.start_ns), ("s1", thinking), ("s2", answer)]
    known = [(style, moment) for style, moment in begins if moment is not None]
    if first is None:
        known = [("s4", record.start_ns)]
    stops = [*(moment for _, moment in known[1:]), record.end_ns]
    return [(style, start, stop) for (style, start), stop in zip(known, stops, strict=True)]


def ratios(found: Mapping[str, FigureRatio], names: str) -> Plot | None:
    """Every ratio with its interval about the line of 1. `names` says of what over what."""
    if not found:
        return None
    row, top = 17, 26
    height = top + row * len(found) + 30
    values = [value for one in found.values() for value in (one.ratio.low, one.ratio.high, one.ratio.value)]
    known = [value for value in values if value == value and value > 0]
    scale = svg.Scale(min([0.9, *known]) / 1.02, max([1.1, *known]) * 1.02, 178, svg.WIDTH - 12, log=True)
    ticks = [
        tick for tick in (*svg.log_ticks(scale.low, scale.high), 0.8, 0.9, 1.1, 1.25) if scale.low <= tick <= scale.high
    ]
    marks = [f'<path class="axis" d="M{scale.at(1):.1f} {top - 8}V{height - 26}"/>']
    marks += [svg.text(scale.at(tick), height - 10, svg.short(tick), "middle") for tick in _spread(ticks, scale)]
    for place, (name, one) in enumerate(found.items()):
        y = top + row * place
        low, high = (value if value == value else one.ratio.value for value in (one.ratio.low, one.ratio.high))
        marks += [
            svg.text(172, y + 4, _short(name), "end"),
            svg.strokes([(scale.at(low), scale.at(high), y)], "s1", 2),
            svg.dots([(scale.at(one.ratio.value), y)], "s1 large"),
        ]
    body = "".join(marks)
    drawing = f'<svg viewBox="0 0 {svg.WIDTH} {height}" role="img" aria-label="Ratios">{body}</svg>'
    return Plot(f"Ratios, {names}", drawing, "Dot: geometric mean of the rounds. Bar: its 95 % interval.")


def _short(name: str) -> str:
    for _, measure, words in (*_LATENCIES, ("", "inter_token_latency_ms", "inter-token"), ("", "_ms", "")):
        name = name.replace(measure, words)
    return name.replace("_", " ")


def _spread(ticks: Sequence[float], scale: svg.Scale) -> list[float]:
    """Leaves out ticks whose labels would touch; 1 stays."""
    kept = [1.0]
    for tick in sorted(set(ticks)):
        if all(abs(scale.at(tick) - scale.at(other)) > 24 for other in kept):
            kept.append(tick)
    return kept


def thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, evenly chosen."""
    if len(items) <= most:
        return items
    return [items[number * len(items) // most] for number in range(most)]


def _of(shown: Sequence[object], everything: Sequence[object], before: str = ": ") -> str:
    """Says so when not all are drawn."""
    return "" if len(shown) == len(everything) else f"{before}{len(shown)} of {len(everything)} shown"
