"""By when an answer is to begin: named by the request or its key, or by a route for the sake of all."""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from models.config import Section, Tokens

FLOOR = 64


class LoadConfig(Section):
    """`[routes.NAME.load]`. `goal_seconds` is the deadline of requests that name no budget (0: none), and with
    `hold_clients` of all. Where a deadline leaves less than `floor` tokens of thinking the reply does not think. By
    `shift` the threshold of a decider goes towards 1 while the engine is slower than it can be."""

    goal_seconds: float = Field(default=0.0, ge=0)
    floor: Tokens = FLOOR
    hold_clients: bool = False
    shift: float = Field(default=0.0, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The answer is to begin `seconds` after the request came, which is `at` on the clock of `time.perf_counter`. `by`
    says whose deadline it is, `tokens` what thinking would fit, at the engine's pace when the reply began."""

    seconds: float
    by: Literal["deadline", "load"]
    floor: int = FLOOR
    at: float = math.inf
    tokens: int | None = None
