"""Speculative Thinking's settings: when the target model takes over, and for how long.

Yang et al., "Speculative Thinking", arXiv 2504.12329, section 3 and appendix A.2. The constants are the paper's, and
where it gives none (how the threshold and the length of the third takeover grow) those of the authors' code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from models.config import Section, Tokens

DELIMITERS = ("\n\n",)
SENTENCE_TOKENS = 20  # the paper's n1
OPENING_TOKENS = 100  # the paper's, for small models that do not reason
AtLeastOne = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Cue = Annotated[str, Field(pattern=r"\S")]
Method = Literal["takeover", "accept"]
OnFailure = Literal["alone", "fail"]

SCORE_QUESTION = (
    "\n\nEvaluate the last reasoning step solely based on factual correctness and logical validity. Ignore style, "
    "phrasing, or overall usefulness, only judge whether the step is objectively correct and logically follows from "
    "prior steps. Assign a score from 0 to 9. I think the quality score is: "
)
"""SpecReason's question (its code, 8c5ee05), put behind the thought itself: a prefix that the target has cached."""


class CueList(Section):
    """One language's cues: whole words, without regard to case. Verification cues count as reflection too."""

    reflection: tuple[Cue, ...] = ()
    affirmation: tuple[Cue, ...] = ()
    verification: tuple[Cue, ...] = ()


CUES: Mapping[str, CueList] = MappingProxyType(
    {
        "en": CueList(
            reflection=("wait", "alternatively", "hold on", "another", "verify", "think again", "recap", "check"),
            affirmation=("yeah", "yes", "final answer", "confident"),
            verification=("verify", "think again", "recap", "check"),
        )
    }
)
"""The paper's own lists (section 3.1)."""


@dataclass(frozen=True, slots=True)
class TakeoverLimits:
    """What a request may change about takeovers, in tokens but for `excess_after`. 0 switches a takeover off.

    `takeover_tokens` follow an affirmation or a reflection (n1), `verification_tokens` a verification cue (n2),
    `excess_tokens` the prompt against excessive reflection (n3), which comes after `excess_after` negative sentences.
    `opening_tokens` begin the thought. `target_tokens` is the most that the target may write in one reply.
    """

    takeover_tokens: int = SENTENCE_TOKENS
    verification_tokens: int = 125
    excess_tokens: int = 125
    excess_after: int = 15
    opening_tokens: int = 0
    target_tokens: int | None = None

    def within(self, asked: Mapping[str, int], caps: "TakeoverLimits") -> "TakeoverLimits":
        """These with what a request asked for, as far as the caps allow: no longer, and no earlier."""
        lengths = replace(self, **asked)
        bounded: dict[str, Any] = {}
        for name in LENGTHS:
            values = [value for value in (getattr(lengths, name), getattr(caps, name)) if value is not None]
            bounded[name] = (max if name == "excess_after" else min)(values, default=None)
        return TakeoverLimits(**bounded)


USUAL = TakeoverLimits()
LENGTHS = tuple(each.name for each in fields(TakeoverLimits))


class TakeoverCaps(Section):
    """Bounds of what requests may ask of takeovers: no more tokens than these, and no fewer negative sentences before
    one against excess. Left out: the route's own."""

    takeover_tokens: Tokens | None = None
    verification_tokens: Tokens | None = None
    excess_tokens: Tokens | None = None
    excess_after: Tokens | None = None
    opening_tokens: Tokens | None = None
    target_tokens: Tokens | None = None


class SpeculativeConfig(Section):
    """`[routes.NAME.speculative]`: a `target` engine beside the route's own, the small one.

    `method` is `takeover` (Speculative Thinking) or `accept` (SpecReason's accept-or-rewrite, arXiv 2504.07891: the
    target scores every step by one token from 0 to 9, and rewrites, in at most `step_tokens`, what scores below
    `accept_score`). `small_reasons = false` is the paper's variant for small models that do not reason: the target
    writes behind every delimiter. `cues` are lists by language; given ones go beside the built-in `en` unless they
    replace it. `on_failure`: the small model goes on `alone` when the target fails, or the reply fails with it;
    `patience` is how many seconds the target may be silent, `rest_seconds` how long it is left alone after a failure.
    """

    target: str
    adapter: str = ""
    method: Method = "takeover"
    small_reasons: bool = True
    takeover_tokens: Tokens = USUAL.takeover_tokens
    verification_tokens: Tokens = USUAL.verification_tokens
    excess_tokens: Tokens = USUAL.excess_tokens
    excess_after: AtLeastOne = USUAL.excess_after
    opening_tokens: Tokens | None = None
    target_tokens: Tokens | None = None
    caps: TakeoverCaps = TakeoverCaps()
    sentence_tokens: AtLeastOne = SENTENCE_TOKENS
    delimiters: Annotated[tuple[Text, ...], Field(min_length=1)] = DELIMITERS
    cues: dict[str, CueList] = Field(default_factory=dict)
    excess_prompt: str = "Let us check whether there are some wrong steps."
    excess_after_step: Tokens = 5
    excess_after_most: Tokens = 30
    excess_tokens_step: Tokens = 25
    excess_tokens_most: Tokens = 200
    accept_score: float = Field(default=7, ge=0, le=9)
    step_tokens: AtLeastOne = 512
    score_question: str = SCORE_QUESTION
    on_failure: OnFailure = "alone"
    patience: float | None = Field(default=30.0, gt=0)
    rest_seconds: float = Field(default=5.0, ge=0)

    @property
    def lengths(self) -> TakeoverLimits:
        """Those of a request that names none."""
        opening = self.opening_tokens
        if opening is None:
            opening = 0 if self.small_reasons else OPENING_TOKENS
        return TakeoverLimits(**{**{name: getattr(self, name) for name in LENGTHS}, "opening_tokens": opening})

    @property
    def longest(self) -> TakeoverLimits:
        """What no request may exceed."""
        return replace(self.lengths, **self.caps.model_dump(exclude_none=True))

    @property
    def all_cues(self) -> tuple[CueList, ...]:
        return tuple({**CUES, **self.cues}.values())
