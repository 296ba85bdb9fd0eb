"""Speculative Thinking's settings: when the target model takes over, and for how long.

Yang et al., "Speculative Thinking", arXiv 2504.12329, section 3 and appendix A.2. The constants are the paper's, and
where it gives none (how the threshold and the length of the third takeover grow) those of the authors' code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

DELIMITERS = ("\n\n",)
SENTENCE_TOKENS = 20  # the paper's n1
Method = Literal["takeover", "accept"]
OnFailure = Literal["alone", "fail"]

SCORE_QUESTION = (
    "\n\nEvaluate the last reasoning step solely based on factual correctness and logical validity. Ignore style, "
    "phrasing, or overall usefulness, only judge whether the step is objectively correct and logically follows from "
    "prior steps. Assign a score from 0 to 9. I think the quality score is: "
)
"""SpecReason's question (its code, 8c5ee05), put behind the thought itself: a prefix that the target has cached."""


@dataclass(frozen=True, slots=True)
class CueList:
    """One language's cues, matched without regard to case. Verification cues count as reflection too."""

    reflection: tuple[str, ...] = ()
    affirmation: tuple[str, ...] = ()
    verification: tuple[str, ...] = ()


CUES: Mapping[str, CueList] = MappingProxyType(
    {
        "en": CueList(
            ("wait", "alternatively", "hold on", "another", "verify", "think again", "recap", "check"),
            ("yeah", "yes", "final answer", "confident"),
            ("verify", "think again", "recap", "check"),
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


LENGTHS = tuple(each.name for each in fields(TakeoverLimits))


@dataclass(frozen=True, slots=True)
class Speculation:
    """A route's settings. `small_reasons` False is the paper's variant for small models that do not reason: the target
    writes behind every delimiter. `method` "accept" is SpecReason's accept-or-rewrite (arXiv 2504.07891): the target
    scores every step by one token from 0 to 9, and rewrites, in at most `step_tokens`, what scores below
    `accept_score`."""

    lengths: TakeoverLimits = field(default_factory=TakeoverLimits)
    caps: TakeoverLimits = field(default_factory=TakeoverLimits)
    method: Method = "takeover"
    small_reasons: bool = True
    delimiters: tuple[str, ...] = DELIMITERS
    cues: tuple[CueList, ...] = tuple(CUES.values())
    sentence_tokens: int = SENTENCE_TOKENS
    excess_prompt: str = "Let us check whether there are some wrong steps."
    excess_after_step: int = 5
    excess_after_most: int = 30
    excess_tokens_step: int = 25
    excess_tokens_most: int = 200
    accept_score: float = 7
    step_tokens: int = 512
    score_question: str = SCORE_QUESTION
