"""One HTML page with everything in it: no script, no other host, readable on a phone and on paper."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from loadtest.analysis.comparison import FigureRatio, LoadComparison
from loadtest.analysis.distribution import Interval
from loadtest.analysis.goals import Goal
from loadtest.analysis.summary import ReplyGroup, Summary, summarise
from loadtest.records import RunResult
from loadtest.report import plots
from loadtest.report.plots import Plot
from loadtest.report.tables import LABELS, facts, number

_MOST_COLUMNS: Final = 3
_MEANS: Final = (
    ("output_tokens", "tokens, mean"),
    ("reasoning_tokens", "reasoning tokens, mean"),
    ("time_to_first_token_ms", "first token, ms, mean"),
    ("time_to_first_output_token_ms", "first answer token, ms, mean"),
)
_STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


def report(results: Sequence[RunResult], goals: Sequence[Goal] = (), headline: str = "") -> str:
    """One run, or the levels of a sweep or a search. Raises ValueError for no results."""
    if not results:
        raise ValueError("a report needs at least one run")
    summaries = [summarise(result, goals) for result in results]
    last = max(range(len(results)), key=lambda place: summaries[place].requests_per_second)
    whole = replace(results[last], records=tuple(record for result in results for record in result.records))
    overall = summarise(whole)
    title = summaries[last].name
    described = summaries[last].arrivals if len(results) == 1 else f"{len(results)} levels of load"
    body = [_head(title, f"{described} · {_date(results[0])}", headline), _tiles(summaries[last])]
    body += [_levels(summaries)] if len(summaries) > 1 else []
    body.append(_figures(_plots(results, summaries, overall, last)))
    where = f" ({summaries[last].arrivals})" if len(summaries) > 1 else ""
    tables = [_measures(f"Distributions{where}", summaries[last]), _facts(f"Figures{where}", summaries[last])]
    tables.append(_groups("Variants", "variant", overall.variants))
    tables.append(_groups("Difficulties", "difficulty", overall.difficulties))
    body.append(_side_by_side(tables))
    return page(title, body)


def comparison_report(comparison: LoadComparison) -> str:
    """The sides beside each other over all rounds, then the ratios, then each one's figures in its last round."""
    first, *others = comparison.sides
    pairs = [
        (f"{first.name} over {other.name}", ratios) for other, ratios in zip(others, comparison.ratios, strict=True)
    ]
    arrivals, rounds = first.summaries[0].arrivals, len(first.summaries)
    title = f"{first.name} against {' and '.join(other.name for other in others)}"
    described = f"{rounds} rounds in alternation · {arrivals} · {_date(first.results[0])}"
    body = [_head(title, described, "; ".join(f"{side.name}: {side.label}" for side in comparison.sides))]
    body.append(_beside(comparison.groups))
    tokens, latency = comparison.accuracy_tokens_front, comparison.accuracy_latency_front
    drawn = [
        plots.accuracy_over(comparison.groups, tokens, "output_tokens", "tokens", "tokens"),
        plots.accuracy_over(comparison.groups, latency, "request_latency_ms", "latency", "milliseconds"),
        *(plots.ratios(ratios, names) for names, ratios in pairs),
        *(_named(plots.time_line(side.results[-1]), side.name) for side in comparison.sides),
    ]
    body.append(_figures(drawn))
    tables = [_ratio_table(first.name, *pair, other.name) for pair, other in zip(pairs, others, strict=True)]
    body.append(_side_by_side(tables))
    last = [(f"{side.name}, last round", side.summaries[-1]) for side in comparison.sides]
    body.append(_side_by_side([_measures(*one) for one in last] + [_facts(*one) for one in last]))
    return page(title, body)


def _beside(groups: Sequence[ReplyGroup]) -> str:
    """A column for each side where they are few enough for a phone, else a row."""
    if len(groups) > _MOST_COLUMNS:
        return _groups("Side by side", "side", groups)
    rows = [
        ["replies", *(str(one.replies) for one in groups)],
        ["correct [95 %]", *(_brief(one.accuracy) for one in groups)],
        ["thought", *(_share(one.think_ratio) for one in groups)],
        ["empty answers", *(_share(one.empty_answers) for one in groups)],
        *([words, *(_statistic(one, name, "mean") for one in groups)] for name, words in _MEANS),
        *(
            [f"whole reply, ms, {statistic}", *(_statistic(one, "request_latency_ms", statistic) for one in groups)]
            for statistic in ("mean", "p50", "p99")
        ),
    ]
    return _table("Side by side", ["", *(one.name for one in groups)], rows)


def _statistic(group: ReplyGroup, name: str, statistic: str) -> str:
    figures = getattr(group, name)
    return "–" if figures is None else number(getattr(figures, statistic))


def _ratio_table(first: str, names: str, ratios: Mapping[str, FigureRatio], other: str) -> str:
    rows = [
        [name.replace("_", " "), number(one.a), number(one.b), number(one.ratio.value), _interval(one.ratio)]
        for name, one in ratios.items()
    ]
    return _table(f"Ratios, {names}", ["", first, other, "ratio", "95 % interval"], rows)


def _named(figure: Plot | None, name: str) -> Plot | None:
    return None if figure is None else replace(figure, title=f"{figure.title}: {name}")


def _plots(
    results: Sequence[RunResult], summaries: Sequence[Summary], overall: Summary, last: int
) -> Iterator[Plot | None]:
    records = [record for result in results for record in result.records]
    good = [record for record in records if record.error is None]
    load = plots.latency_over_load(summaries)
    yield load if load is not None else plots.latency_in_flight(results[last].records)
    tokens, latency = overall.accuracy_tokens_front, overall.accuracy_latency_front
    yield plots.accuracy_over(overall.variants, tokens, "output_tokens", "tokens", "tokens")
    yield plots.accuracy_over(overall.variants, latency, "request_latency_ms", "latency", "milliseconds")
    yield plots.budget_asked_used(good)
    yield plots.thinking_by_difficulty(overall.difficulties)
    yield plots.time_line(results[last])


def page(title: str, body: Iterable[str]) -> str:
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body>'
    )
    return f"{head}{''.join(body)}</body></html>\n"


def _date(result: RunResult) -> str:
    return f"{datetime.fromtimestamp(result.started_at, UTC):%Y-%m-%d %H:%M} UTC"


def _head(title: str, described: str, headline: str) -> str:
    more = f"<p>{escape(headline)}</p>" if headline else ""
    return f'<h1>{escape(title)}</h1><p class="soft">{escape(described)}</p>{more}'


def _tiles(summary: Summary) -> str:
    shown = [
        (number(summary.requests_per_second), "requests per second"),
        (number(summary.output_tokens_per_second), "output tokens per second"),
        (_median(summary, "time_to_first_token_ms"), "ms to first token, median"),
        (_median(summary, "time_to_first_output_token_ms"), "ms to first answer token, median"),
        (_median(summary, "inter_token_latency_ms"), "ms between tokens, median"),
        (_share(summary.think_ratio), "of replies thought"),
        (_share(summary.empty_answers), "of answers empty"),
    ]
    if summary.accuracy is not None:
        shown.append((_share(summary.accuracy), "of answers correct"))
    if summary.goodput is not None:
        shown.append((number(summary.goodput.requests_per_second), "good requests per second"))
    failed = summary.requests - summary.succeeded
    shown.append((f"{failed} / {summary.requests}", "requests failed"))
    tiles = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>' for value, words in shown
    )
    return f'<div class="tiles">{tiles}</div>'


def _median(summary: Summary, measure: str) -> str:
    figures = summary.measures.get(measure)
    return "–" if figures is None else number(figures.p50)


def _share(share: Interval | None) -> str:
    return "–" if share is None else f"{100 * share.value:.1f} %"


def _brief(share: Interval | None) -> str:
    return "–" if share is None else f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _interval(interval: Interval) -> str:
    return f"{number(interval.low)} – {number(interval.high)}"


def _figures(figures: Iterable[Plot | None]) -> str:
    drawn = "".join(
        f"<figure><h3>{escape(one.title)}</h3>{one.drawing}<figcaption>{escape(one.caption)}</figcaption></figure>"
        for one in figures
        if one is not None
    )
    return f'<h2>Plots</h2><div class="plots">{drawn}</div>'


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    heading = f"<thead><tr>{head}</tr></thead>" if columns else ""
    table = f'<table class="{style}">{heading}<tbody>{body}</tbody></table>'
    return f'<section><h2>{escape(title)}</h2><div class="scroll">{table}</div></section>'


def _side_by_side(tables: Iterable[str]) -> str:
    return f'<div class="tables">{"".join(tables)}</div>'


def _levels(summaries: Sequence[Summary]) -> str:
    columns = ["arrivals", "requests/s", "tokens/s", "first token p50", "p99", "first answer p50", "latency p50", "p99"]
    columns += ["met goals", "failed"]
    rows = [
        [
            one.arrivals,
            number(one.requests_per_second),
            number(one.output_tokens_per_second),
            *_cells(one, ("time_to_first_token_ms", "p50"), ("time_to_first_token_ms", "p99")),
            *_cells(one, ("time_to_first_output_token_ms", "p50")),
            *_cells(one, ("request_latency_ms", "p50"), ("request_latency_ms", "p99")),
            _share(one.goodput.fraction if one.goodput else None),
            str(one.requests - one.succeeded),
        ]
        for one in summaries
    ]
    return _table("Levels of load (times in ms)", columns, rows)


def _cells(summary: Summary, *wanted: tuple[str, str]) -> Iterator[str]:
    for measure, statistic in wanted:
        figures = summary.measures.get(measure)
        yield "–" if figures is None else number(getattr(figures, statistic))


def _measures(title: str, summary: Summary) -> str:
    rows = [
        [label, *(number(getattr(figures, statistic)) for statistic in _STATISTICS)]
        for name, label in LABELS.items()
        if (figures := summary.measures.get(name)) is not None
    ]
    return _table(title, ["", *_STATISTICS], rows, "measures")


def _facts(title: str, summary: Summary) -> str:
    return _table(title, [], [[name, words] for name, words in facts(summary)], "facts")


def _groups(title: str, column: str, groups: Sequence[ReplyGroup]) -> str:
    if len(groups) < 2:
        return ""
    rows = [
        [
            group.name,
            str(group.replies),
            _brief(group.accuracy),
            _share(group.think_ratio),
            _share(group.empty_answers),
            *(
                "–" if figures is None else number(figures.mean)
                for figures in (group.output_tokens, group.reasoning_tokens)
            ),
            "–" if group.request_latency_ms is None else number(group.request_latency_ms.mean),
        ]
        for group in groups
    ]
    columns = [column, "replies", "% correct [95 %]", "thought", "empty", "tokens", "reasoning", "ms"]
    return _table(title, columns, rows)
