"""Early exit by the margin to the closing tag (ThinkBrake): no further request, and no form of answer is needed.

The running request gives log-probabilities beside its tokens. Of a tag of several tokens the first one is looked at.
"""

import math

from controllers.generation.state import ReplyState
from controllers.policy.exits import MarginConfig
from controllers.rules.base import NO_LIMITS, Action, EngineLimits
from controllers.rules.early_exit import EarlyExit, sentence_over
from controllers.rules.limits import ScopeLimits
from models.engines.base import Delta

ALTERNATIVES = 20
"""Log-probabilities beside each token; a tag that is not among them is far."""


class Margin(EarlyExit[MarginConfig]):
    """Looks behind each sentence: the token that would begin the next one is thrown away where it ends there."""

    __slots__ = ("_closer",)

    def __init__(self, settings: MarginConfig, limits: ScopeLimits) -> None:
        super().__init__(settings, limits)
        route = limits.route
        assert route.family.thinking is not None
        self._closer = route.engine.tokenizer.encode_control(route.family.thinking[1])[0]

    def engine_limits(self, state: ReplyState) -> EngineLimits:
        limits = super().engine_limits(state)
        if limits is NO_LIMITS:
            return limits
        wanted = max(ALTERNATIVES, state.sampling.logprobs or 0)
        return EngineLimits(changes={**limits.changes, "logprobs": wanted})

    def before_token(self, state: ReplyState, token: Delta) -> Action | None:
        if state.position < self.asleep_until(state) or not token.logprobs or token.token_ids[0] == self._closer:
            return None
        if not sentence_over(state, token):
            return None
        top = {at.token_id: at.logprob for at in token.logprobs[0].top}
        margin = max(top.values()) - top.get(self._closer, -math.inf)
        self._looks += 1
        self._best = margin if self._best is None else min(self._best, margin)
        return self._ending("line_end") if margin <= self._settings.tau else None
