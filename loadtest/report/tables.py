"""A run as a table for the terminal, as JSON, and as CSV (one line a request)."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from loadtest.analysis import measures
from loadtest.analysis.comparison import LoadComparison
from loadtest.analysis.distribution import Distribution, Interval
from loadtest.analysis.summary import ReplyGroup, Summary
from loadtest.records import RequestRecord, RunResult

LABELS: Final = {
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
_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


def number(value: float | None) -> str:
    """Four significant digits, no exponent; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def percent(share: Interval | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def table(summary: Summary) -> str:
    """The whole summary as text, at most 100 columns."""
    lines = [f"{summary.name} · {summary.arrivals} · {summary.seconds:.1f} s", ""]
    lines += [f"{name:<32}{text}" for name, text in facts(summary)]
    lines += ["", f"{'':<32}" + "".join(f"{column:>10}" for column in _COLUMNS)]
    for name, label in LABELS.items():
        if name in summary.measures:
            lines.append(f"{label:<32}" + _row(summary.measures[name]))
    for title, groups in (("variant", summary.variants), ("difficulty", summary.difficulties)):
        if len(groups) > 1:
            lines += ["", *_group_table(title, groups)]
    return "\n".join(lines)


def _row(figures: Distribution) -> str:
    return "".join(f"{number(getattr(figures, column)):>10}" for column in _COLUMNS)


def facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """What is one figure, named, in the order in which one wants to know it."""
    yield "requests", f"{summary.succeeded} of {summary.requests} succeeded, {summary.max_in_flight} at once at most"
    for kind, count in summary.errors.items():
        yield f"error {kind}", str(count)
    yield "requests per second", number(summary.requests_per_second)
    reasoning = number(summary.reasoning_tokens_per_second)
    yield "output tokens per second", f"{number(summary.output_tokens_per_second)}, {reasoning} of them reasoning"
    if summary.goodput is not None:
        good = summary.goodput
        goals = ", ".join(f"{goal.measure} ≤ {goal.limit:g}" for goal in good.goals)
        yield (
            "goodput, requests per second",
            f"{number(good.requests_per_second)}: {percent(good.fraction)} met {goals}",
        )
    yield "think ratio", percent(summary.think_ratio)
    if summary.modes:
        yield "modes", ", ".join(f"{mode}: {count}" for mode, count in summary.modes.items())
    if summary.target_share is not None:
        yield "share of target tokens", f"{100 * summary.target_share:.1f} %"
    yield "empty answers", percent(summary.empty_answers)
    yield "accuracy", percent(summary.accuracy)
    if summary.budgets is not None:
        budgets = summary.budgets
        yield "budgets asked, used (mean)", f"{number(budgets.asked.mean)}, {number(budgets.used.mean)}"
        yield "budget exceeded", percent(budgets.exceeded)
        yield "budget cut", percent(budgets.cut)
    yield "finish reasons", ", ".join(f"{reason}: {count}" for reason, count in summary.finish_reasons.items()) or "–"
    processes = f", in {summary.processes} processes" if summary.processes > 1 else ""
    yield "load tester's processor share", f"{100 * summary.cpu_share:.1f} % of one core{processes}"


def _group_table(title: str, groups: Sequence[ReplyGroup]) -> Iterator[str]:
    yield f"{title:<24}{'replies':>8}{'accuracy':>10}{'think':>8}{'empty':>8}{'tokens':>10}{'reasoning':>10}{'ms':>10}"
    for group in groups:
        shares = (group.accuracy, group.think_ratio, group.empty_answers)
        means = (group.output_tokens, group.reasoning_tokens, group.request_latency_ms)
        accuracy, think, empty = ("–" if share is None else f"{100 * share.value:.1f}" for share in shares)
        tokens, reasoning, latency = ("–" if figures is None else number(figures.mean) for figures in means)
        yield (
            f"{group.name[:23]:<24}{group.replies:>8}{accuracy:>10}{think:>8}{empty:>8}"
            f"{tokens:>10}{reasoning:>10}{latency:>10}"
        )


def comparison_table(comparison: LoadComparison) -> str:
    first, *others = comparison.sides
    lines = [f"{side.name}: {side.label}" for side in comparison.sides]
    lines += [f"{len(first.summaries)} rounds in alternation", "", *_group_table("side", comparison.groups)]
    fronts = (("tokens", comparison.accuracy_tokens_front), ("latency", comparison.accuracy_latency_front))
    lines += [f"front of accuracy against {cost}: {', '.join(front.names)}" for cost, front in fronts if front]
    for other, ratios in zip(others, comparison.ratios, strict=True):
        ratio = f"{first.name} / {other.name}"
        lines += ["", f"{'':<40}{first.name[:11]:>12}{other.name[:11]:>12}{ratio[:19]:>20}   95 % interval"]
        for name, one in ratios.items():
            interval = f"[{number(one.ratio.low)}, {number(one.ratio.high)}]"
            lines.append(f"{name:<40}{number(one.a):>12}{number(one.b):>12}{number(one.ratio.value):>20}   {interval}")
    return "\n".join(lines)


def comparison_data(comparison: LoadComparison) -> dict[str, Any]:
    """Everything but the single requests, which go to CSV."""
    first, *others = comparison.sides
    return {
        "sides": [{"name": one.name, "label": one.label, "rounds": one.summaries} for one in comparison.sides],
        "ratios": {
            f"{first.name} / {other.name}": ratios for other, ratios in zip(others, comparison.ratios, strict=True)
        },
        "groups": comparison.groups,
        "accuracy_tokens_front": comparison.accuracy_tokens_front,
        "accuracy_latency_front": comparison.accuracy_latency_front,
    }


def write_json(path: Path, data: Any) -> None:
    """Dataclasses as they stand; what is not a number becomes null."""
    path.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


def rows(results: Iterable[RunResult]) -> Iterator[dict[str, Any]]:
    """One flat row a request; times of start in seconds from the start of its run."""
    for result in results:
        for record in result.records:
            yield {"target": result.target.label, "arrivals": result.arrivals, **_cells(record, result.start_ns)}


def _cells(record: RequestRecord, start_ns: int) -> dict[str, Any]:
    timed = {name: measure(record) for name, measure in {**measures.TIMES, **measures.COUNTS}.items()}
    return {
        "id": record.request.id,
        "variant": record.request.variant,
        "difficulty": record.request.difficulty,
        "scheduled_s": (record.scheduled_ns - start_ns) / 1e9,
        "start_s": (record.start_ns - start_ns) / 1e9,
        **timed,
        "status": record.status,
        "error": record.error,
        "finish_reason": record.finish_reason,
        "mode": record.decision.get("mode"),
        "chosen_by": record.decision.get("chosen_by"),
        "budget_asked": measures.budget_asked(record),
        "budget_used": measures.budget_used(record),
        "cut": measures.was_cut(record),
        "target_tokens": measures.target_tokens(record),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "correct": measures.correct(record),
        "answer": record.answer,
    }


def write_csv(path: Path, results: Iterable[RunResult]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows(results):
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)
