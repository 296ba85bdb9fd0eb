"""One HTML page with everything in it: no script, no other host, readable on a phone and on paper."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader

from loadtest.analysis.comparison import LoadComparison
from loadtest.analysis.goals import Goal
from loadtest.analysis.summary import Summary, summarise
from loadtest.records import RunResult
from loadtest.report import plots
from loadtest.report.plots import Plot
from loadtest.report.tables import (
    FigureTable,
    facts,
    groups_table,
    levels_table,
    measures_table,
    number,
    percent,
    ratio_tables,
    side_by_side,
    statistic,
)

_MAX_COLUMNS: Final = 3
"""Sides that stand beside each other on a phone."""


def report(results: Sequence[RunResult], goals: Sequence[Goal] = (), headline: str = "") -> str:
    """One run, or the levels of a sweep or a search. Raises ValueError for no results, and without matplotlib."""
    if not results:
        raise ValueError("a report needs at least one run")
    plots.require_matplotlib()
    summaries = [summarise(result, goals) for result in results]
    fastest = max(range(len(results)), key=lambda place: summaries[place].requests_per_second)
    summary = summaries[fastest]
    everything = replace(results[fastest], records=tuple(record for result in results for record in result.records))
    overall = summarise(everything)
    several = len(results) > 1
    where = f" ({summary.arrivals})" if several else ""
    groups = (("Variants", "variant", overall.variants), ("Difficulties", "difficulty", overall.difficulties))
    return _page(
        title=summary.name,
        described=f"{f'{len(results)} levels of load' if several else summary.arrivals} · {_date(results[0])}",
        headline=headline,
        tiles=_tiles(summary),
        first_tables=[levels_table(summaries)] if several else [],
        plots=list(_plots(everything, results[fastest], summaries, overall)),
        tables=[
            measures_table(f"Distributions{where}", summary),
            _facts(f"Figures{where}", summary),
            *(groups_table(title, column, found) for title, column, found in groups if len(found) > 1),
        ],
    )


def comparison_report(comparison: LoadComparison) -> str:
    """The sides beside each other over all rounds, then the ratios, then each one's figures in its last round."""
    plots.require_matplotlib()
    first, *others = comparison.sides
    groups = comparison.groups
    beside = side_by_side(groups) if len(groups) <= _MAX_COLUMNS else groups_table("Side by side", "side", groups)
    lines = [(side.name, plots.time_line(side.results[-1])) for side in comparison.sides]
    last = [(f"{side.name}, last round", side.summaries[-1]) for side in comparison.sides]
    return _page(
        title=f"{first.name} against {' and '.join(other.name for other in others)}",
        described=f"{len(first.summaries)} rounds in alternation · {first.summaries[0].arrivals} · "
        f"{_date(first.results[0])}",
        headline="; ".join(f"{side.name}: {side.label}" for side in comparison.sides),
        first_tables=[beside],
        plots=[
            *_accuracy(comparison),
            *(
                plots.ratios(ratios, f"{first.name} over {other.name}")
                for other, ratios in zip(others, comparison.ratios, strict=True)
            ),
            *(line and replace(line, title=f"{line.title}: {name}") for name, line in lines),
        ],
        tables=[
            *ratio_tables(comparison),
            *(measures_table(*one) for one in last),
            *(_facts(*one) for one in last),
        ],
    )


def _page(**content: Any) -> str:
    here = Path(__file__).parent
    pages = Environment(loader=FileSystemLoader(here), autoescape=True, trim_blocks=True)
    style = pages.filters["safe"]((here / "report.css").read_text(encoding="utf-8"))
    return pages.get_template("page.html").render(style=style, **content) + "\n"


def _date(result: RunResult) -> str:
    return f"{datetime.fromtimestamp(result.started_at, UTC):%Y-%m-%d %H:%M} UTC"


def _facts(title: str, summary: Summary) -> FigureTable:
    return FigureTable(title, (), list(facts(summary)), "facts")


def _accuracy(found: Summary | LoadComparison) -> Iterator[Plot | None]:
    groups = found.variants if isinstance(found, Summary) else found.groups
    yield plots.accuracy_over(groups, found.accuracy_tokens_front, "output_tokens", "tokens", "tokens")
    yield plots.accuracy_over(groups, found.accuracy_latency_front, "request_latency_ms", "latency", "milliseconds")


def _plots(
    everything: RunResult, fastest: RunResult, summaries: Sequence[Summary], overall: Summary
) -> Iterator[Plot | None]:
    yield plots.latency_over_load(summaries) or plots.latency_in_flight(fastest.records)
    yield from _accuracy(overall)
    yield plots.budget_asked_used([record for record in everything.records if record.error is None])
    yield plots.thinking_by_difficulty(overall.difficulties)
    yield plots.time_line(fastest)


def _tiles(summary: Summary) -> dict[str, str]:
    """The figures that stand large above all others: words to value."""
    medians = {
        "ms to first token, median": "time_to_first_token_ms",
        "ms to first answer token, median": "time_to_first_output_token_ms",
        "ms between tokens, median": "inter_token_latency_ms",
    }
    tiles = {
        "requests per second": number(summary.requests_per_second),
        "output tokens per second": number(summary.output_tokens_per_second),
        **{words: statistic(summary.measures.get(name), "p50") for words, name in medians.items()},
        "of replies thought": percent(summary.think_ratio),
        "of answers empty": percent(summary.empty_answers),
    }
    if summary.accuracy is not None:
        tiles["of answers correct"] = percent(summary.accuracy)
    if summary.goodput is not None:
        tiles["good requests per second"] = number(summary.goodput.requests_per_second)
    tiles["requests failed"] = f"{summary.requests - summary.succeeded} / {summary.requests}"
    return tiles
