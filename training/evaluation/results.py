"""How the outcome of an evaluation is written: one JSON object, and markdown tables beside it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown(columns: str, rows: Iterable[Sequence[object]]) -> str:
    """A table. The columns' names stand between bars."""
    lines = (" | ".join(map(str, row)) for row in rows)
    return "\n".join([f"| {columns} |", "|---" * (columns.count("|") + 1) + "|", *(f"| {line} |" for line in lines)])


def shown(figure: Mapping[str, Any], places: int = 3) -> str:
    """A figure with its interval; nothing where it is not defined."""
    if figure["value"] is None:
        return ""
    low, high = figure["interval"]
    return f"{figure['value']:.{places}f} ({low:.{places}f} to {high:.{places}f})"


def write(out: Path, name: str, result: Mapping[str, Any], tables: str) -> None:
    """`NAME.json` and `NAME.md` in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / f"{name}.md").write_text(tables + "\n")
