"""A run as JSON (figures) and as CSV (one line a request)."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from loadtest.analysis import measures
from loadtest.analysis.comparison import LoadComparison
from loadtest.records import RequestRecord, RunResult


def comparison_data(comparison: LoadComparison) -> dict[str, Any]:
    """Everything but the single requests, which go to CSV."""
    first, *others = comparison.sides
    names = [f"{first.name} / {other.name}" for other in others]
    return {
        "sides": [{"name": one.name, "label": one.label, "rounds": one.summaries} for one in comparison.sides],
        "ratios": dict(zip(names, comparison.ratios, strict=True)),
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
    timed = {name: measure(record) for name, measure in measures.MEASURES.items()}
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
    found = list(rows(results))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(found[0]) if found else [])
        writer.writeheader()
        writer.writerows(found)
