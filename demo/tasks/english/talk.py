"""Everyday talk, level 0 of the English task: what is said, and an answer to it.

Half of it was written for this task (`everyday.jsonl`), half is real: first exchanges of the ChatterBot corpus
(`chatterbot-corpus`, BSD licence, contributed by its users), of which the subjects are taken that ask for something.
Most of those are questions of trivia with short answers; some answers are jokes, and a few are wrong.
"""

import json
from importlib.resources import files

import yaml

SUBJECTS = ("computers", "food", "science", "tech_support", "trivia")
SHORTEST, LONGEST = 3, 200
"""Characters of an answer that is taken."""
SLOTS = frozenset("[]{}|")
"""What `Wording` would read as a slot or as alternatives."""


def exchanges() -> list[tuple[str, str]]:
    """All talk, each thing said once."""
    found: dict[str, tuple[str, str]] = {}
    for said, answer in [*_written(), *_corpus()]:
        found.setdefault(said.lower(), (said, answer))
    return list(found.values())


def _written() -> list[tuple[str, str]]:
    lines = files("demo.tasks.english").joinpath("everyday.jsonl").read_text().splitlines()
    return [(line["said"], line["answer"]) for line in map(json.loads, lines)]


def _corpus() -> list[tuple[str, str]]:
    folder = files("chatterbot_corpus").joinpath("data", "english")
    firsts = [
        tuple(" ".join(turn.replace("’", "'").split()) for turn in conversation[:2])
        for subject in SUBJECTS
        for conversation in yaml.safe_load(folder.joinpath(f"{subject}.yml").read_text("utf-8"))["conversations"]
    ]
    return [
        (said, answer[0].upper() + answer[1:])
        for said, answer in firsts
        if SHORTEST <= len(answer) <= LONGEST and not answer.endswith("?") and not SLOTS & {*said}
    ]
