"""A run's figures as tables of words: the terminal shows them as text, the page as HTML."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.analysis.comparison import LoadComparison
from loadtest.analysis.distribution import Distribution, Interval
from loadtest.analysis.summary import ReplyGroup, Summary

_LABELS: Final = {
    "time_to_first_token_ms": "time to first token, ms",
    "time_to_first_output_token_ms": "time to first answer token, ms",
    "inter_token_latency_ms": "inter-token latency, ms",
    "time_per_output_token_ms": "time per output token, ms",
    "inter_chunk_latency_ms": "inter-chunk latency, ms",
    "request_latency_ms": "end-to-end latency, ms",
    "request_scheduled_latency_ms": "latency from schedule, ms",
    "request_dispatch_delay_ms": "dispatch delay, ms",
    "output_tokens": "output tokens",
    "reasoning_tokens": "reasoning tokens",
    "answer_tokens": "answer tokens",
    "reasoning_share": "reasoning share of output",
}
_STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Rows begin with their name. `style` is the page's class for it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    style: str = ""


def as_text(table: FigureTable) -> str:
    """Names to the left, figures to the right, columns as wide as they must be."""
    lines = [table.columns, *table.rows] if table.columns else list(table.rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def number(value: float | None) -> str:
    """Four significant digits, no exponent; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def percent(share: Interval | None) -> str:
    return "–" if share is None else f"{100 * share.value:.1f} %"


def percent_interval(share: Interval | None) -> str:
    return "–" if share is None else f"{percent(share)} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def statistic(figures: Distribution | None, name: str) -> str:
    return "–" if figures is None else number(getattr(figures, name))


def facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """What is one figure, named, in the order in which one wants to know it."""
    yield "requests", f"{summary.succeeded} of {summary.requests} succeeded, {summary.max_in_flight} at once at most"
    yield from ((f"error {kind}", str(count)) for kind, count in summary.errors.items())
    yield "requests per second", number(summary.requests_per_second)
    reasoning = number(summary.reasoning_tokens_per_second)
    yield "output tokens per second", f"{number(summary.output_tokens_per_second)}, {reasoning} of them reasoning"
    if (good := summary.goodput) is not None:
        goals = ", ".join(f"{goal.measure} ≤ {goal.limit:g}" for goal in good.goals)
        met = f"{number(good.requests_per_second)}: {percent_interval(good.fraction)} met {goals}"
        yield "goodput, requests per second", met
    yield "think ratio", percent_interval(summary.think_ratio)
    if summary.modes:
        yield "modes", _counts(summary.modes)
    if summary.target_share is not None:
        yield "share of target tokens", f"{100 * summary.target_share:.1f} %"
    yield "empty answers", percent_interval(summary.empty_answers)
    yield "accuracy", percent_interval(summary.accuracy)
    if (budgets := summary.budgets) is not None:
        yield "budgets asked, used (mean)", f"{number(budgets.asked.mean)}, {number(budgets.used.mean)}"
        yield "budget exceeded", percent_interval(budgets.exceeded)
        yield "budget cut", percent_interval(budgets.cut)
    yield "finish reasons", _counts(summary.finish_reasons) or "–"
    processes = f", in {summary.processes} processes" if summary.processes > 1 else ""
    yield "load tester's processor share", f"{100 * summary.cpu_share:.1f} % of one core{processes}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def measures_table(title: str, summary: Summary) -> FigureTable:
    rows = [
        [label, *(statistic(figures, name) for name in _STATISTICS)]
        for measure, label in _LABELS.items()
        if (figures := summary.measures.get(measure)) is not None
    ]
    return FigureTable(title, ("", *_STATISTICS), rows, "measures")


def levels_table(summaries: Sequence[Summary]) -> FigureTable:
    """The levels of a sweep or a search, one a row."""
    latencies = {
        "first token p50": ("time_to_first_token_ms", "p50"),
        "p99": ("time_to_first_token_ms", "p99"),
        "first answer p50": ("time_to_first_output_token_ms", "p50"),
        "latency p50": ("request_latency_ms", "p50"),
        "latency p99": ("request_latency_ms", "p99"),
    }
    rows = [
        [
            one.arrivals,
            number(one.requests_per_second),
            number(one.output_tokens_per_second),
            *(statistic(one.measures.get(measure), name) for measure, name in latencies.values()),
            percent(one.goodput.fraction if one.goodput else None),
            str(one.requests - one.succeeded),
        ]
        for one in summaries
    ]
    columns = ("arrivals", "requests/s", "tokens/s", *latencies, "met goals", "failed")
    return FigureTable("Levels of load (times in ms)", columns, rows)


def groups_table(title: str, column: str, groups: Sequence[ReplyGroup]) -> FigureTable:
    """Groups that belong beside each other, one a row."""
    rows = [[group.name, *(show(group) for show in _GROUP_FIGURES.values())] for group in groups]
    return FigureTable(title, (column, *_GROUP_FIGURES), rows)


def side_by_side(groups: Sequence[ReplyGroup]) -> FigureTable:
    """The same, one a column and with more figures: what fits a phone where they are few."""
    rows = [[name, *map(show, groups)] for name, show in (_GROUP_FIGURES | _MORE_FIGURES).items()]
    return FigureTable("Side by side", ("", *(group.name for group in groups)), rows)


def _of(name: str, statistic_name: str = "mean") -> Callable[[ReplyGroup], str]:
    return lambda group: statistic(group.measures.get(name), statistic_name)


_GROUP_FIGURES: Final[dict[str, Callable[[ReplyGroup], str]]] = {
    "replies": lambda group: str(group.replies),
    "% correct [95 %]": lambda group: _brief(group.accuracy),
    "thought": lambda group: percent(group.think_ratio),
    "empty": lambda group: percent(group.empty_answers),
    "tokens": _of("output_tokens"),
    "reasoning": _of("reasoning_tokens"),
    "ms": _of("request_latency_ms"),
}
_MORE_FIGURES: Final[dict[str, Callable[[ReplyGroup], str]]] = {
    "ms, p50": _of("request_latency_ms", "p50"),
    "ms, p99": _of("request_latency_ms", "p99"),
    "ms to the first token": _of("time_to_first_token_ms"),
    "ms to the first answer token": _of("time_to_first_output_token_ms"),
}


def _brief(share: Interval | None) -> str:
    return "–" if share is None else f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def ratio_tables(comparison: LoadComparison) -> Iterator[FigureTable]:
    """The first side's figures over each other side's."""
    first, *others = comparison.sides
    for other, ratios in zip(others, comparison.ratios, strict=True):
        rows = [
            [
                name.replace("_", " "),
                *(number(value) for value in (one.a, one.b, one.ratio.value)),
                f"{number(one.ratio.low)} – {number(one.ratio.high)}",
            ]
            for name, one in ratios.items()
        ]
        columns = ("", first.name, other.name, "ratio", "95 % interval")
        yield FigureTable(f"Ratios, {first.name} over {other.name}", columns, rows)


def run_text(summary: Summary) -> str:
    """The whole summary as text."""
    parts = [f"{summary.name} · {summary.arrivals} · {summary.seconds:.1f} s"]
    parts.append("\n".join(f"{name:<32}{text}" for name, text in facts(summary)))
    parts.append(as_text(measures_table("", summary)))
    for column, groups in (("variant", summary.variants), ("difficulty", summary.difficulties)):
        if len(groups) > 1:
            parts.append(as_text(groups_table("", column, groups)))
    return "\n\n".join(parts)


def comparison_text(comparison: LoadComparison) -> str:
    sides = [f"{side.name}: {side.label}" for side in comparison.sides]
    sides.append(f"{len(comparison.sides[0].summaries)} rounds in alternation")
    found = [as_text(groups_table("", "side", comparison.groups))]
    fronts = {"tokens": comparison.accuracy_tokens_front, "latency": comparison.accuracy_latency_front}
    found += [f"front of accuracy against {cost}: {', '.join(front.names)}" for cost, front in fronts.items() if front]
    ratios = [f"{table.title}\n{as_text(table)}" for table in ratio_tables(comparison)]
    return "\n\n".join(["\n".join(sides), "\n".join(found), *ratios])
