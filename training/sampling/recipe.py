"""The recipe of `method = "sample"`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from training.config import Mode, ModelSection
from training.data.questions import Split
from training.data.source import DataSection
from training.recipe import Recipe


class RouteSection(Recipe):
    """A route of a running reasond: its server's `url`, and its name there. `key_env` names the variable that holds
    the API key. A request that fails is tried `retries` times more."""

    url: str
    model: str
    key_env: str = "REASOND_API_KEY"
    concurrency: PositiveInt = 32
    timeout: PositiveFloat = 600.0
    retries: int = Field(3, ge=0)


class SampleRecipe(Recipe):
    """`samples` replies to each of `questions` questions, in each of `modes` and at each of `budgets`; where both are
    empty the model is free. They are scored by the data's checker and appended to `out`, one JSON line each.

    The replies are a `route`'s, or a `model`'s through transformers, `batch` at a time; of a model that declares
    budgets they are plain ones, without tags. `temperature` 0 is greedy.
    """

    method: Literal["sample"] = "sample"
    model: ModelSection | None = None
    route: RouteSection | None = None
    data: DataSection
    out: Path
    part: Split = "train"
    seed: int = 2
    questions: PositiveInt = 4000
    modes: tuple[Mode, ...] = ()
    budgets: tuple[PositiveInt, ...] = ()
    samples: PositiveInt = 1
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 128
    batch: PositiveInt = 256

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if (self.model is None) == (self.route is None):
            raise ValueError("sample takes either a model or a route")
        if self.route is not None:
            self.refuse_unread(("batch",), "a route has `concurrency`")
        else:
            self.refuse_unread(("budgets",), "only a route keeps a reply to a budget")
            self.refuse_unread(("model.lora",), "only what trains has a new adapter; merge one first")
        return self

    @property
    def asked(self) -> list[tuple[Mode | None, int | None]]:
        """The mode and the budget of each reply to a question."""
        ways: list[tuple[Mode | None, int | None]] = [(mode, None) for mode in self.modes]
        ways += [(None, budget) for budget in self.budgets]
        return [way for way in ways or [(None, None)] for _ in range(self.samples)]
