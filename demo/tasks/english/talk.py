"""Everyday talk, level 0 of the English task: what is said, and a true answer to it, written for this task."""

import json
from importlib.resources import files


def exchanges() -> list[tuple[str, str]]:
    lines = files("demo.tasks.english").joinpath("everyday.jsonl").read_text().splitlines()
    return [(line["said"], line["answer"]) for line in map(json.loads, lines)]
