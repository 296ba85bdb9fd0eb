"""When the target model takes over: Speculative Thinking's rules and their constants. Pure.

Yang et al., "Speculative Thinking", arXiv 2504.12329, section 3 and appendix A.2. The constants are the paper's, and
where it gives none (how the threshold and the length of the third takeover grow) those of the authors' code.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from controllers.generation.steps import NEGATIVE, Cues, Sentence, Steps
from controllers.policy.speculation import SpeculativeConfig, TakeoverLimits

NO_CUES = Cues(())
TakeoverKind = Literal["opening", "step", "affirmation", "reflection", "verification", "excess", "rewrite"]


@dataclass(frozen=True, slots=True)
class Takeover:
    """A stretch for the target to write: at most `tokens`. `replaces`: in place of what is held. `cue` is the kind of
    the sentence that called for it."""

    kind: TakeoverKind
    tokens: int
    replaces: bool = False
    cue: Sentence = "statement"


Ruling = Takeover | Literal["keep", "score"]


class Guide(ABC):
    """Rules over one reply's thought. Pure: text in, rulings out.

    While `holding`, a token of the small model is held back until `small` rules on it: what is held is kept, or
    replaced by a takeover, or scored first (then `scored` rules). None: nothing to rule on yet.
    """

    @property
    @abstractmethod
    def holding(self) -> bool: ...

    @abstractmethod
    def small(self, piece: str, last: bool) -> Ruling | None:
        """The small model wrote one token; `last` says that the thought ends with it."""

    @abstractmethod
    def target(self, piece: str) -> int:
        """The target wrote one token. How many more, or fewer, it is to write than it was to so far."""

    @abstractmethod
    def ended(self, wrote: bool) -> None:
        """The takeover is over, and the small model goes on; `wrote` says whether the target said anything."""

    def opening(self) -> Takeover | None:
        """What begins the thought."""
        return None

    def scored(self, score: float) -> Ruling:
        """The target's score of what is held."""
        return "keep"

    def refused(self, takeover: Takeover) -> None:  # noqa: B027
        """The target cannot write this: what was held is kept."""

    def began(self, takeover: Takeover) -> None:  # noqa: B027
        """The target writes this now; what was held was dropped."""


class Takeovers(Guide):
    """The three takeovers, and the variant for small models that do not reason.

    A negative sentence counts if it stands in the reply, whoever wrote it. A takeover is extended at most once, by a
    verification.
    """

    def __init__(self, settings: SpeculativeConfig, lengths: TakeoverLimits, cues: Cues) -> None:
        self._settings = settings
        self._lengths = lengths
        self._steps = Steps(cues, settings.delimiters, settings.sentence_tokens)
        self._negatives = 0
        self._after = lengths.excess_after
        self._excess_tokens = lengths.excess_tokens
        self._extendable = False

    @property
    def holding(self) -> bool:
        return self._steps.open

    def opening(self) -> Takeover | None:
        return Takeover("opening", self._lengths.opening_tokens) if self._lengths.opening_tokens else None

    def small(self, piece: str, last: bool) -> Ruling | None:
        held = self._steps.open
        kinds = self._steps.feed(piece, last)
        if kinds:
            takeover = self._instead_of(kinds[0])
            if takeover is not None:
                return takeover
            self._stand(kinds)
        if self._steps.open and (kinds or not held) and (due := self._at_delimiter()) is not None:
            return due
        return "keep" if kinds else None

    def refused(self, takeover: Takeover) -> None:
        self._stand([takeover.cue])
        self._steps.skip()

    def began(self, takeover: Takeover) -> None:
        self._extendable = (
            takeover.kind in ("affirmation", "reflection", "step") and self._lengths.verification_tokens > 0
        )
        self._steps.reopen()
        if takeover.kind in ("opening", "excess"):
            self._steps.skip()  # it begins in mid-step
        if takeover.kind == "excess":
            self._negatives = 0
            self._after = min(self._after + self._settings.excess_after_step, self._settings.excess_after_most)
            longer = min(self._excess_tokens + self._settings.excess_tokens_step, self._settings.excess_tokens_most)
            self._excess_tokens = max(self._excess_tokens, longer)

    def target(self, piece: str) -> int:
        kinds = self._steps.feed(piece)
        self._stand(kinds)
        if not self._extendable or "verification" not in kinds:
            return 0
        self._extendable = False
        return self._lengths.verification_tokens

    def ended(self, wrote: bool) -> None:
        """In mid-step the small model just goes on; where the target had nothing to say it must not be asked again."""
        if self._steps.blank and wrote and self._settings.small_reasons:
            return
        if self._steps.open:
            self._stand(self._steps.feed("", last=True))
        self._steps.skip()

    def _instead_of(self, sentence: Sentence) -> Takeover | None:
        if sentence == "verification" and self._lengths.verification_tokens:
            return Takeover("verification", self._lengths.verification_tokens, replaces=True, cue=sentence)
        if sentence == "statement" or not self._lengths.takeover_tokens:
            return None
        kind: TakeoverKind = "affirmation" if sentence == "affirmation" else "reflection"
        return Takeover(kind, self._lengths.takeover_tokens, replaces=True, cue=sentence)

    def _at_delimiter(self) -> Takeover | None:
        """What comes at a delimiter before anything is read behind it."""
        if self._excess_tokens and self._negatives >= self._after:
            return Takeover("excess", self._excess_tokens)
        if not self._settings.small_reasons and self._lengths.takeover_tokens:
            return Takeover("step", self._lengths.takeover_tokens)
        return None

    def _stand(self, sentences: Sequence[Sentence]) -> None:
        self._negatives += sum(sentence in NEGATIVE for sentence in sentences)


class AcceptOrRewrite(Guide):
    """SpecReason: every step is held until the target has scored it."""

    def __init__(self, settings: SpeculativeConfig) -> None:
        self._settings = settings
        self._steps = Steps(NO_CUES, settings.delimiters)
        self._blank = True  # whether the step has no text yet

    @property
    def holding(self) -> bool:
        return True

    def small(self, piece: str, last: bool) -> Ruling | None:
        self._steps.feed(piece)
        self._blank = self._blank and not piece.strip()
        if not (last or self._steps.open):
            return None
        self._steps.skip()
        blank, self._blank = self._blank, True
        return "keep" if blank else "score"

    def scored(self, score: float) -> Ruling:
        if score >= self._settings.accept_score:
            return "keep"
        return Takeover("rewrite", self._settings.step_tokens, replaces=True)

    def target(self, piece: str) -> int:
        """It writes one step."""
        self._steps.feed(piece)
        return -self._settings.step_tokens if self._steps.open else 0

    def ended(self, wrote: bool) -> None:
        self._steps.skip()


def guide_for(settings: SpeculativeConfig, limits: TakeoverLimits, cues: Cues) -> Guide:
    """A guide for one reply."""
    return AcceptOrRewrite(settings) if settings.method == "accept" else Takeovers(settings, limits, cues)
