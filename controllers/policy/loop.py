"""When a model that repeats itself is stopped: a route's settings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """A route's settings, in tokens; `novelty` is a share, and 0 switches the templated sign off. Nothing is looked for
    in the first `after` tokens."""

    ngram: int = 8
    repeats: int = 4
    span: int = 96
    answer_span: int = 256
    novelty: float = 0.05
    window: int = 2048
    after: int = 256
