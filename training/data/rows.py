"""Rows of token ids for next-token training."""

from collections.abc import Iterable

IGNORED = -100

Row = dict[str, list[int]]
"""`input_ids` and `labels` of the same length, the prompt's labels `IGNORED`."""


def learned_row(prompt: list[int], reply: list[int]) -> Row:
    return {"input_ids": [*prompt, *reply], "labels": [IGNORED] * len(prompt) + reply}


def by_length(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: len(row["input_ids"]))
