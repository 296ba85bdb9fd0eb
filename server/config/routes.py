"""`[routes.NAME]`: a name that clients put in `model`, and what it stands for."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr, SerializeAsAny, ValidationInfo, field_validator

from controllers.deciders import read_decider
from controllers.deciders.base import DeciderConfig
from controllers.judging.settings import JudgeConfig
from controllers.policy.controls import EFFORTS, MOST_REPLIES, Wish
from controllers.policy.exits import ExitConfig
from controllers.policy.fold import TOLERANCE, BudgetSettings, default_reserve
from controllers.policy.load import LoadConfig
from controllers.policy.loop import LoopConfig
from controllers.policy.speculation import SpeculativeConfig
from models.config import Section, Tokens
from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat
from server.admission import AdmissionConfig
from server.config.sampling import SamplingConfig

AUTO = "auto"
"""The family that a model's own template says."""


class BudgetsConfig(Section):
    """How much a route's requests may think, in tokens of its family's scope.

    `default` is for requests that name no budget, `cap` bounds every request. `reserve` tokens of `max_tokens` are kept
    for the answer; 0 keeps none, left out it is `default_reserve`. `efforts` gives the budget of each
    `reasoning_effort`; those left out keep the server's own. `cut` is how thinking ends at its budget: at a line end
    within `tolerance` tokens or with the family's phrase (`graceful`), or on the spot (`hard`). `hold_declared` holds a
    model to the budget that it declares.
    """

    default: Tokens | None = None
    cap: Tokens | None = None
    reserve: Tokens | None = None
    efforts: dict[Literal["minimal", "low", "medium", "high", "xhigh", "max"], Tokens] = Field(default_factory=dict)
    cut: Literal["graceful", "hard"] = "graceful"
    tolerance: Tokens = TOLERANCE
    hold_declared: bool = False

    def as_policy(self, family: ReasoningFormat, context_length: int) -> BudgetSettings:
        return BudgetSettings(
            default=self.default,
            cap=self.cap,
            reserve=default_reserve(family, context_length) if self.reserve is None else self.reserve,
            reserve_share=0.5 if self.reserve is None else 1.0,
            efforts={**EFFORTS, **{str(effort): tokens for effort, tokens in self.efforts.items()}},
            graceful=self.cut == "graceful",
            tolerance=self.tolerance,
            hold_declared=self.hold_declared,
        )


class RouteConfig(Section):
    """A name that clients put in `model`, and further `names` for it. `mode` left out: auto where the family chooses,
    else think, else no_think.

    `judge` is for routes whose controller is `judge`. `judged_by` names such a route, which ranks replies where a
    request, or `best_of` here, wants the best of several. `auto` names the decider of mode `auto`, `exit` the rule that
    ends settled thoughts. The family `auto` is
    found by the model's own template before anything else is decided (`detected`).
    """

    engine: str
    adapter: str = ""
    family: str = AUTO
    controller: Literal["mode", "judge", "speculative"] = "mode"
    judge: JudgeConfig = JudgeConfig()
    judged_by: str = ""
    best_of: int = Field(default=1, ge=1, le=MOST_REPLIES)
    names: tuple[str, ...] = ()
    mode: Wish | None = None
    think_threshold: float | None = Field(default=None, ge=0, le=1)
    description: str = ""
    sampling: SamplingConfig = SamplingConfig()
    budgets: BudgetsConfig = BudgetsConfig()
    loop: LoopConfig = LoopConfig()
    exit: ExitConfig | None = None
    load: LoadConfig = LoadConfig()
    auto: SerializeAsAny[DeciderConfig] | None = None
    speculative: SpeculativeConfig | None = None
    admission: AdmissionConfig = AdmissionConfig()

    @field_validator("auto", mode="before")
    @classmethod
    def _known_decider(cls, value: Any, info: ValidationInfo) -> Any:
        return read_decider(value, info.context) if isinstance(value, dict) else value

    _format: ReasoningFormat | None = PrivateAttr(None)
    _found_by: str = PrivateAttr("named by the configuration")

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str, info: ValidationInfo) -> str:
        known = _families(info.context)
        if value != AUTO and value not in known:
            raise ValueError(f"unknown family {value!r}; known: {', '.join([AUTO, *known])}")
        return value

    def model_post_init(self, context: Any) -> None:
        if self.family != AUTO:
            self._format = _families(context)[self.family]

    def detected(self, family: ReasoningFormat, found_by: str) -> "RouteConfig":
        """The route with the family that was found for it."""
        route = self.model_copy(update={"family": family.name})
        route._format, route._found_by = family, found_by
        return route

    @property
    def found_by(self) -> str:
        """Why the route has its family."""
        return self._found_by

    @property
    def of_family(self) -> ReasoningFormat:
        return self._format or FAMILIES["plain"]

    @property
    def default_mode(self) -> Wish:
        if self.mode is not None:
            return self.mode
        if self.of_family.chooses or self.auto is not None:
            return "auto"
        return "think" if "think" in self.of_family.able else "no_think"


def _families(context: Any) -> Mapping[str, ReasoningFormat]:
    """What a configuration's routes may name: the built-in families, and its own."""
    known: Mapping[str, ReasoningFormat] = (context or {}).get("families", FAMILIES)
    return known
