"""Loops: a model that writes the same again and again is brought to its answer. Pure, on token ids.

Two signs. *Exact*: the text repeats itself with one period for `span` tokens and for `repeats` rounds. *Templated*:
hardly any of the last `window` tokens' n-grams are new, as where a draft is written again with other numbers. The
answer is held to the exact sign alone, over `answer_span` tokens; it ends there, since nothing can follow it.
"""

from collections import deque

from controllers.generation.bounds import NEVER
from controllers.generation.state import ReplyState
from controllers.policy.loop import LoopConfig
from controllers.rules.base import NO_LIMITS, Action, EngineLimits, Rule
from controllers.rules.limits import ScopeLimits

STRIDE = 16
"""Tokens between two looks. It keeps what a loop costs before it is seen under four periods and 110 tokens."""

WHOLE_TOKENS = 2048  # of a reply that may come in one piece though it may loop


class Loop(Rule):
    """Looks every `STRIDE` tokens. It remembers where each n-gram of the section stood last, and how many were new."""

    __slots__ = ("_fresh", "_ids", "_last", "_limits", "_read", "_section", "_settings")

    def __init__(self, settings: LoopConfig, limits: ScopeLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._begin("")

    def _begin(self, section: str) -> None:
        self._section = section
        self._ids: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}
        self._fresh: deque[int] = deque(maxlen=max(1, self._settings.window // STRIDE))
        self._read = 0

    def asleep_until(self, state: ReplyState) -> int:
        if state.parser.section not in ("reasoning", "answer") or state.grammar_pending:
            return NEVER
        return max(self._settings.after, state.position - state.position % STRIDE + STRIDE)

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        """Somebody must read along where a loop would be dear. In a short reply it is cut once all has come."""
        dear = state.sampling.whole and state.max_tokens > WHOLE_TOKENS
        return EngineLimits(changes={"whole": False}) if dear else NO_LIMITS

    def after_token(self, state: ReplyState) -> Action | None:
        section = state.parser.section
        if state.finish is not None or state.position % STRIDE or state.position < self._settings.after:
            return None
        if section not in ("reasoning", "answer") or state.grammar_pending:
            return None
        thinking = self._limits.in_scope(state)
        if section != self._section:
            self._begin(section)
            self._read = state.position - (state.reasoning_tokens if section == "reasoning" else state.answer_tokens)
        if not self._loops(state, thinking):
            return None
        bounds = self._limits.bounds(state)
        if not thinking or bounds is None or state.wrapped_up:
            return Action(finish="length", note=("loop", section))
        return self._limits.ending(state, bounds, "hard" if self._limits.refusal else "wrap_up", "loop")

    def _loops(self, state: ReplyState, thinking: bool) -> bool:
        """Reads on to the reply's last token."""
        settings, ids = self._settings, self._ids
        start, known = max(0, len(ids) - settings.ngram + 1), len(self._last)
        ids.extend(state.tokens_since(self._read))
        self._read = state.position
        newest = len(ids) - settings.ngram
        if newest < 0:
            return False
        grams = zip(*(ids[start + shift :] for shift in range(settings.ngram)), strict=False)
        *earlier, last = enumerate(grams, start)
        self._last |= {gram: at for at, gram in earlier}
        period = newest - self._last.get(last[1], newest)
        self._last[last[1]] = newest
        self._fresh.append(len(self._last) - known)
        if period and self._repeats(period, settings.span if thinking else settings.answer_span):
            return True
        full = len(self._fresh) == self._fresh.maxlen and thinking
        return full and sum(self._fresh) < settings.novelty * settings.window

    def _repeats(self, period: int, span: int) -> bool:
        length, ids = max(span, (self._settings.repeats - 1) * period), self._ids
        return len(ids) >= length + period and ids[-length:] == ids[-length - period : -period]
