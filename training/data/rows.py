"""Rows of token ids to learn from."""

from collections.abc import Iterable

IGNORED = -100

Row = dict[str, list[int]]
"""`input_ids` and `labels` of the same length, the prompt's labels `IGNORED`."""


PairRow = dict[str, list[int]]
"""`prompt_ids`, and `chosen_ids` and `rejected_ids`, replies of which the first is better."""


def learned_row(prompt: list[int], reply: list[int]) -> Row:
    return {"input_ids": [*prompt, *reply], "labels": [IGNORED] * len(prompt) + reply}


def by_length(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: len(row["input_ids"]))
