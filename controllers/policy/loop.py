"""When a model that repeats itself is stopped."""

from pydantic import Field

from models.config import Section


class LoopConfig(Section):
    """`[routes.NAME.loop]`, in tokens; `novelty` is a share, and 0 switches the templated sign off. Nothing is looked
    for in the first `after` tokens. `enabled = false` lets a model go on."""

    enabled: bool = True
    ngram: int = Field(default=8, ge=2)
    repeats: int = Field(default=4, ge=2)
    span: int = Field(default=96, ge=16)
    answer_span: int = Field(default=256, ge=16)
    novelty: float = Field(default=0.05, ge=0, lt=1)
    window: int = Field(default=2048, ge=256)
    after: int = Field(default=256, ge=0)
