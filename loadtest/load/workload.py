"""What is asked: JSON-lines files, generated questions with known answers, and mixes of modes, budgets and routes."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from loadtest.records import LoadRequest

_FIELDS: Final = frozenset({"id", "messages", "prompt", "answer", "difficulty", "body", "route", "stream", "at"})
_MULTIPLIERS: Final = (3, 7, 9)
"""Multiplying by these modulo ten loses nothing: every step changes the answer for every start."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One entry of a mix: how often (a weight), and what it lays over a request."""

    name: str
    weight: float = 1.0
    body: Mapping[str, Any] = field(default_factory=dict)
    route: str | None = None


def load_requests(path: Path, body: Mapping[str, Any] | None = None) -> list[LoadRequest]:
    """One request a line: `messages` (or `prompt`), and where known `answer`, `difficulty`, `at` (seconds), `body`.

    `body` given here is laid under each line's own. Raises ValueError that names the line.
    """
    requests = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    requests.append(parse(json.loads(line), f"{path.stem}-{number}", body or {}))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
    return requests


def parse(line: Mapping[str, Any], default_id: str, body: Mapping[str, Any]) -> LoadRequest:
    unknown = line.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}; known are {sorted(_FIELDS)}")
    if ("messages" in line) == ("prompt" in line):
        raise ValueError("needs either 'messages' or 'prompt'")
    answer = line.get("answer")
    return LoadRequest(
        id=str(line.get("id", default_id)),
        messages=tuple(line.get("messages") or ({"role": "user", "content": line["prompt"]},)),
        answer=None if answer is None else str(answer),
        difficulty=line.get("difficulty"),
        body={**body, **line.get("body", {})},
        route=line.get("route"),
        stream=line.get("stream", True),
        at=line.get("at"),
    )


def last_digit(
    count: int, seed: int = 0, depths: Sequence[int] = (1, 2, 4, 8), body: Mapping[str, Any] | None = None
) -> list[LoadRequest]:
    """Chained arithmetic modulo ten: the answer is one digit, the difficulty is the number of steps."""
    draw = random.Random(f"last digit {seed}")
    return [_question(number, draw.choice(depths), draw, body or {}) for number in range(count)]


def _question(number: int, depth: int, draw: random.Random, body: Mapping[str, Any]) -> LoadRequest:
    value = draw.randrange(10)
    text = f"Start with {value}, then"
    for step in range(depth):
        sign = draw.choice("+-*")
        operand = draw.choice(_MULTIPLIERS) if sign == "*" else draw.randint(1, 9)
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[sign] % 10
        text += f" {chr(ord('a') + step % 26)}{sign}{operand}"
    message = {"role": "user", "content": f"{text}. What is the last digit?"}
    return LoadRequest(f"digit-{number}", (message,), answer=str(value), difficulty=depth, body=body)


def mixed(requests: Iterable[LoadRequest], variants: Sequence[Variant], seed: int = 0) -> list[LoadRequest]:
    """Draws one variant for each request, by weight."""
    draw = random.Random(f"mix {seed}")
    weights = [variant.weight for variant in variants]
    return [_vary(request, draw.choices(variants, weights)[0]) for request in requests]


def crossed(requests: Iterable[LoadRequest], variants: Sequence[Variant]) -> list[LoadRequest]:
    """Every request once for every variant: what an accuracy front is measured with."""
    return [_vary(request, variant) for request in requests for variant in variants]


def _vary(request: LoadRequest, variant: Variant) -> LoadRequest:
    return replace(
        request,
        id=f"{request.id}/{variant.name}",
        variant=variant.name,
        body={**request.body, **variant.body},
        route=variant.route or request.route,
    )


def repeated(requests: Sequence[LoadRequest], count: int) -> list[LoadRequest]:
    """The requests over and over, `count` of them."""
    return list(islice(cycle(requests), count))
