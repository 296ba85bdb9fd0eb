"""When a settled thought is ended before its model ends it: a route's settings."""

from typing import Annotated, Literal

from pydantic import Field

from controllers.policy.speculation import DELIMITERS
from models.config import Section, Tokens

Count = Annotated[int, Field(ge=1)]


class EarlyExitConfig(Section):
    """`[routes.NAME.exit]`. `default` says whether requests that do not name it have it. No thought is ended in its
    first `after` tokens."""

    rule: str
    default: bool = True
    after: Tokens = 128


class MarginConfig(EarlyExitConfig):
    """ThinkBrake (arXiv 2510.00546): the thought is settled where, behind a sentence or a line, the log-probability of
    the closing tag is at most `tau` below that of the best token."""

    rule: Literal["margin"]
    tau: float = Field(default=0.25, ge=0)


class TrialConfig(EarlyExitConfig):
    """DEER (arXiv 2504.15895): the thought is settled where a trial answer is sure.

    A trial stands behind a `delimiter`, before a sentence that turns back (`at = "cue"`) or before any (`"step"`), at
    least `apart` tokens behind the last one, and `most` times in a thought. It is what the model writes behind
    `inducer`, up to `end` (empty: up to the end of the reply), in at most `tokens` tokens. It is sure if it comes to
    its end and the mean probability of its tokens but the first `skip` is above `confidence`; with `closed` the
    closing tag must follow, for models that are too sure. `confirm` trials in a row must agree.

    A settled thought ends with its sentence, or after `patience` more tokens.
    """

    rule: Literal["trial"]
    at: Literal["cue", "step"] = "cue"
    delimiters: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = DELIMITERS
    inducer: str = Field(default="\n**Final Answer**\n\\boxed{", min_length=1)
    end: str = "}"
    tokens: Count = 20
    confidence: float = Field(default=0.95, ge=0, lt=1)
    skip: Tokens = 1
    closed: bool = False
    confirm: Count = 1
    apart: Count = 64
    most: Count = 10
    patience: Tokens = 32


ExitConfig = Annotated[MarginConfig | TrialConfig, Field(discriminator="rule")]
