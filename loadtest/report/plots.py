"""The report's plots, drawn by matplotlib: records or figures in, SVG with a caption out, None where nothing is known.

Colours become the page's CSS variables, so that one drawing serves a light page, a dark page and paper.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from math import isnan
from typing import Any, Final, TypeVar

from loadtest.analysis import measures
from loadtest.analysis.comparison import FigureRatio
from loadtest.analysis.summary import AccuracyFront, ReplyGroup, Summary
from loadtest.records import RequestRecord, RunResult

T = TypeVar("T")
_MAX_DOTS: Final = 500
_MAX_BARS: Final = 90
_BLUE, _ORANGE, _GREEN, _GREY, _RED, _TEXT, _GRID = _INKS = [f"#00000{number}" for number in range(1, 8)]
_VARIABLES: Final = dict(zip(_INKS, ("s1", "s2", "s3", "s4", "s5", "soft", "line"), strict=True))
"""The page's variable for each colour that matplotlib draws with."""
_STYLE: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _TEXT),
}
_UNWANTED: Final = re.compile(
    r'^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->| xmlns(:\w+)?="[^"]*"| id="[\w.]+_\d+"'
    r'| font-family: [^;"]+;?|(?<=\.\d\d)\d+|(?<=\n) +',
    re.DOTALL,
)
_LATENCIES: Final = {
    "time_to_first_token_ms": ("first token", _BLUE),
    "time_to_first_output_token_ms": ("first answer token", _ORANGE),
    "request_latency_ms": ("whole reply", _GREEN),
}


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    drawing: str
    caption: str


def require_matplotlib() -> None:
    """Raises ModuleNotFoundError that says what to install."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an HTML page needs matplotlib: pip install 'reasond[report]'") from error


def _plot(title: str, caption: str, labels: tuple[str, str], draw: Callable[[Any], object], height: int = 250) -> Plot:
    """`draw` is given the axes. What it gives a label is named in a legend below them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": title}), StringIO() as file:
        figure = Figure((380 / 72, height / 72), layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(length=0)
        draw(axes)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if entries := len(axes.get_legend_handles_labels()[0]):
            figure.set_figheight((height + 16 * -(-entries // 3)) / 72)
            figure.legend(loc="outside lower left", ncols=3, handlelength=1.2, markerscale=1.5)
        figure.savefig(file, format="svg", transparent=True)
        text = _UNWANTED.sub("", file.getvalue())
    for ink, variable in _VARIABLES.items():
        text = text.replace(ink, f"var(--{variable})")
    return Plot(title, text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1), caption)


def _scale(axes: Any, name: str, values: Iterable[float], log: bool = False) -> None:
    """Plain numbers at round places of one axis (`x` or `y`), from 0 on unless it is logarithmic."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    known = [value for value in values if value > 0 or not log]
    low, high = min(known), max(known)
    if log:
        axes.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.3, high * 1.3)})
    else:
        axes.set(**{f"{name}lim": (min(0.0, low), 1.05 * high or 1.0)})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if log and high > 4 * low else MaxNLocator(5, steps=(1, 2, 5, 10))
    )
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def latency_over_load(summaries: Sequence[Summary]) -> Plot | None:
    """A line for each latency over the load that was offered at each level of a sweep."""
    words, load = _load(summaries)
    levels = sorted((one for one in summaries if one.succeeded), key=load)
    if len(levels) < 2:
        return None
    shown = {name: look for name, look in _LATENCIES.items() if all(name in one.measures for one in levels)}
    loads = [load(one) for one in levels]

    def draw(axes: Any) -> None:
        _scale(axes, "x", loads)
        both = [value for one in levels for name in shown for value in (one.measures[name].p50, one.measures[name].p99)]
        _scale(axes, "y", both, log=True)
        for name, (label, colour) in shown.items():
            axes.plot(loads, [one.measures[name].p50 for one in levels], "o-", color=colour, label=label)
            axes.plot(loads, [one.measures[name].p99 for one in levels], "--", color=colour)

    caption = "Solid: median. Dashed: 99th percentile. One dot a run."
    return _plot("Latency over load", caption, (words, "milliseconds"), draw)


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
    shown = thinned(done, _MAX_DOTS)
    load = [bisect_right(starts, one.start_ns) - bisect_left(ends, one.start_ns) for one in shown]
    latency = [(one.end_ns - one.start_ns) / 1e6 for one in shown]

    def draw(axes: Any) -> None:
        _scale(axes, "x", load)
        _scale(axes, "y", latency)
        axes.plot(load, latency, "o", markersize=2.5, color=_GREEN, alpha=0.45, markeredgewidth=0)

    caption = f"End-to-end latency of each reply{_of(shown, done)}."
    return _plot("Latency over load", caption, ("requests in flight at the start", "milliseconds"), draw)


def accuracy_over(
    groups: Sequence[ReplyGroup], best: AccuracyFront | None, cost: str, words: str, unit: str
) -> Plot | None:
    """A dot with its interval for each variant; the front joins those that no other variant beats."""
    known = [(group.name, group.accuracy, group.measures.get(cost)) for group in groups]
    points = [(name, figures.mean, share) for name, share, figures in known if share and figures]
    if not points or best is None:
        return None
    looks = [(colour, marker) for marker in "osD^v" for colour in (_BLUE, _ORANGE, _GREEN, _RED)]

    def draw(axes: Any) -> None:
        _scale(axes, "x", (mean for _, mean, _ in points))
        _scale(axes, "y", (0, 100 / 1.05))
        axes.plot(*zip(*((mean, 100 * share) for mean, share in best.points), strict=True), "--", color=_GREY)
        for place, (name, mean, share) in enumerate(points):
            colour, marker = looks[place % len(looks)]
            bar = [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]
            axes.errorbar(mean, 100 * share.value, bar, fmt=marker, color=colour, label=name)

    caption = "Bars: 95 % interval (Wilson). Dashed: the front, what no other variant beats."
    return _plot(f"Accuracy against {words}", caption, (f"{unit} of a reply, mean", "correct, %"), draw)


def budget_asked_used(records: Sequence[RequestRecord]) -> Plot | None:
    pairs = measures.budgets(records)
    if not pairs:
        return None
    shown = thinned(pairs, _MAX_DOTS)
    everything = [max(1, value) for asked, used, _ in pairs for value in (asked, used)]
    log = max(everything) > 20 * min(everything)

    def draw(axes: Any) -> None:
        _scale(axes, "x", everything, log)
        _scale(axes, "y", everything, log)
        axes.plot([1, max(everything)], [1, max(everything)], "--", color=_GREY)
        for wanted, colour, label in ((False, _BLUE, "ended by itself"), (True, _ORANGE, "cut")):
            dots = [(max(asked, log), max(used, log)) for asked, used, cut in shown if cut is wanted]
            axes.plot(
                *(zip(*dots, strict=True) if dots else ((), ())),
                "o",
                markersize=2.5,
                color=colour,
                alpha=0.45,
                markeredgewidth=0,
                label=label,
            )

    zero = " 0 is drawn as 1." if log and any(not used or not asked for asked, used, _ in pairs) else ""
    caption = f"Dashed: used = asked.{zero}{_of(shown, pairs, ' Dots: ')}"
    return _plot("Budget asked against used", caption, ("tokens asked", "tokens used"), draw)


def thinking_by_difficulty(groups: Sequence[ReplyGroup]) -> Plot | None:
    known = [(group.name, figures) for group in groups if (figures := group.measures.get("reasoning_tokens"))]
    if len(known) < 2:
        return None
    boxes = [
        {"label": name, "med": one.p50, "q1": one.p25, "q3": one.p90, "whislo": one.min, "whishi": one.max}
        for name, one in known
    ]

    def draw(axes: Any) -> None:
        looks = {part: {"color": _BLUE} for part in ("boxprops", "whiskerprops", "capprops")}
        axes.bxp(boxes, showfliers=False, medianprops={"color": _ORANGE}, **looks)
        _scale(axes, "y", (one.max for _, one in known))

    caption = "Line: median. Box: 25th to 90th percentile. Whisker: least to most."
    return _plot("Thinking by difficulty", caption, ("difficulty", "reasoning tokens"), draw)


def time_line(result: RunResult) -> Plot | None:
    """A bar a request, in the order of their starts: waiting, thinking, answering."""
    shown = thinned(sorted(result.records, key=lambda record: record.start_ns), _MAX_BARS)
    if not shown:
        return None
    bars = [(place, *phase) for place, record in enumerate(shown) for phase in _phases(record)]

    def seconds(moment_ns: int) -> float:
        return (moment_ns - result.start_ns) / 1e9

    def draw(axes: Any) -> None:
        _scale(axes, "x", [seconds(record.end_ns) for record in shown])
        axes.set(ylim=(len(shown), -1), yticks=[])
        thickness = min(6.0, 150 / len(shown))
        for phase, colour in (("waiting", _GREY), ("thinking", _BLUE), ("answering", _ORANGE), ("failed", _RED)):
            spans = [(place, seconds(start), seconds(end)) for place, name, start, end in bars if name == phase]
            places, starts, ends = zip(*spans, strict=True) if spans else ((), (), ())
            axes.hlines(places, starts, ends, color=colour, linewidth=thickness, label=phase)

    caption = f"{result.arrivals}{_of(shown, result.records, '. Bars: ')}."
    return _plot("Time line", caption, ("seconds", "requests, by start"), draw)


def _phases(record: RequestRecord) -> list[tuple[str, int, int]]:
    """Phases in order, each from its start to the next one's."""
    if record.error is not None:
        return [("failed", record.start_ns, record.end_ns)]
    thinking, answer = record.first_ns("reasoning"), record.first_ns("answer")
    begins = [("waiting", record.start_ns), ("thinking", thinking), ("answering", answer)]
    known = [(phase, moment) for phase, moment in begins if moment is not None]
    stops = [*(moment for _, moment in known[1:]), record.end_ns]
    return [(phase, start, stop) for (phase, start), stop in zip(known, stops, strict=True)]


def ratios(found: Mapping[str, FigureRatio], names: str) -> Plot | None:
    """Every ratio with its interval about the line of 1. `names` says of what over what."""
    if not found:
        return None
    spans = [
        (one.ratio.value, *(one.ratio.value if isnan(end) else end for end in (one.ratio.low, one.ratio.high)))
        for one in found.values()
    ]

    def draw(axes: Any) -> None:
        _scale(axes, "x", [0.9, 1.1, *(value for span in spans for value in span)], log=True)
        axes.axvline(1, color=_TEXT, linewidth=1)
        axes.set_yticks(range(len(spans)), [_short(name) for name in found])
        axes.invert_yaxis()
        bars = zip(*((value - low, high - value) for value, low, high in spans), strict=True)
        axes.errorbar([value for value, *_ in spans], range(len(spans)), xerr=list(bars), fmt="o", color=_BLUE)

    caption = "Dot: geometric mean of the rounds. Bar: its 95 % interval."
    return _plot(f"Ratios, {names}", caption, ("", ""), draw, 40 + 17 * len(spans))


def _short(name: str) -> str:
    for measure, (words, _) in _LATENCIES.items():
        name = name.replace(measure, words)
    return name.replace("inter_token_latency", "inter-token").replace("_ms", "").replace("_", " ")


def thinned(items: Sequence[T], count: int) -> Sequence[T]:
    """At most so many of them, evenly chosen."""
    if len(items) <= count:
        return items
    return [items[number * len(items) // count] for number in range(count)]


def _of(shown: Sequence[object], everything: Sequence[object], before: str = ": ") -> str:
    """Says so when not all are drawn."""
    return "" if len(shown) == len(everything) else f"{before}{len(shown)} of {len(everything)} shown"
