"""A route's target model, as configured: Speculative Thinking's constants, with the paper's as defaults."""

from dataclasses import fields, replace
from typing import Annotated

from pydantic import Field, field_validator

from controllers.policy.speculation import CUES, LENGTHS, CueList, Method, OnFailure, Speculation, TakeoverLimits
from models.config import Section, Tokens

DEFAULT_LENGTHS = TakeoverLimits()
DEFAULT_SPECULATION = Speculation()
OPENING_TOKENS = 100  # the paper's, for small models that do not reason
SAME = {each.name for each in fields(Speculation)} - {"lengths", "caps", "cues"}


class CuesConfig(Section):
    """One language's cues, as whole words. Verification cues count as reflection too."""

    reflection: tuple[str, ...] = ()
    affirmation: tuple[str, ...] = ()
    verification: tuple[str, ...] = ()


class TakeoverLimitsConfig(Section):
    """Bounds of what requests may ask of takeovers: no more tokens than these, and no fewer negative sentences before
    one against excess. Left out: the route's own."""

    takeover_tokens: Tokens | None = None
    verification_tokens: Tokens | None = None
    excess_tokens: Tokens | None = None
    excess_after: Tokens | None = None
    opening_tokens: Tokens | None = None
    target_tokens: Tokens | None = None


class SpeculativeConfig(Section):
    """`[routes.NAME.speculative]`: a target engine beside the route's own, the small one.

    `method` is `takeover` (Speculative Thinking) or `accept` (SpecReason's accept-or-rewrite). What the numbers mean is
    in `controllers/policy/speculation.py`; 0 switches a takeover off. `cues` are lists by language; given ones
    go beside the built-in `en` unless they replace it. `on_failure`: the small model goes on `alone` when the
    target fails, or the reply fails with it; `patience` is how many seconds the target may be silent,
    `rest_seconds` how long it is left alone after a failure.
    """

    target: str
    adapter: str = ""
    method: Method = "takeover"
    small_reasons: bool = True
    takeover_tokens: Tokens = DEFAULT_LENGTHS.takeover_tokens
    verification_tokens: Tokens = DEFAULT_LENGTHS.verification_tokens
    excess_tokens: Tokens = DEFAULT_LENGTHS.excess_tokens
    excess_after: Annotated[int, Field(ge=1)] = DEFAULT_LENGTHS.excess_after
    opening_tokens: Tokens | None = None
    target_tokens: Tokens | None = None
    caps: TakeoverLimitsConfig = TakeoverLimitsConfig()
    sentence_tokens: Annotated[int, Field(ge=1)] = DEFAULT_SPECULATION.sentence_tokens
    delimiters: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (
        DEFAULT_SPECULATION.delimiters
    )
    cues: dict[str, CuesConfig] = Field(default_factory=dict)
    excess_prompt: str = DEFAULT_SPECULATION.excess_prompt
    excess_after_step: Tokens = DEFAULT_SPECULATION.excess_after_step
    excess_after_most: Tokens = DEFAULT_SPECULATION.excess_after_most
    excess_tokens_step: Tokens = DEFAULT_SPECULATION.excess_tokens_step
    excess_tokens_most: Tokens = DEFAULT_SPECULATION.excess_tokens_most
    accept_score: float = Field(default=DEFAULT_SPECULATION.accept_score, ge=0, le=9)
    step_tokens: Annotated[int, Field(ge=1)] = DEFAULT_SPECULATION.step_tokens
    score_question: str = DEFAULT_SPECULATION.score_question
    on_failure: OnFailure = "alone"
    patience: float | None = Field(default=30.0, gt=0)
    rest_seconds: float = Field(default=5.0, ge=0)

    @field_validator("cues")
    @classmethod
    def _worded(cls, cues: dict[str, CuesConfig]) -> dict[str, CuesConfig]:
        for language, lists in cues.items():
            if not all(cue.strip() for cue in (*lists.reflection, *lists.affirmation, *lists.verification)):
                raise ValueError(f"{language}: a cue cannot be empty")
        return cues

    def as_settings(self) -> Speculation:
        opening = self.opening_tokens
        if opening is None:
            opening = 0 if self.small_reasons else OPENING_TOKENS
        lengths = TakeoverLimits(**{**self.model_dump(include=set(LENGTHS)), "opening_tokens": opening})
        given = {language: CueList(**lists.model_dump()) for language, lists in self.cues.items()}
        return Speculation(
            lengths=lengths,
            caps=replace(lengths, **self.caps.model_dump(exclude_none=True)),
            cues=tuple({**CUES, **given}.values()),
            **self.model_dump(include=SAME),
        )
