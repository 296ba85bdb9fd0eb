"""How fast an engine writes just now, measured on the replies that it gives. What time estimates stand on."""

import math
import time

WEIGHT = 0.2  # of the newest reply's first token
MEMORY = 256  # tokens, of whichever replies, after which an old measurement counts for a third
LONG_MEMORY = 2**20  # tokens after which the least that a token ever took counts for a third
FULL_PRESSURE = 3.0  # by how much of the quiet engine's pace a token takes longer at full pressure
OWN_TOKENS = 16  # after so many tokens a reply's own pace is the better witness


class ThroughputEstimate:
    """Seconds to the first token of a reply, of a later segment (`again`), and seconds per token, as moving averages;
    `quiet` is what a token took when it took least, of late. One for each engine."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.again: float | None = None
        self.token: float | None = None
        self.quiet: float | None = None

    def began(self, seconds: float) -> None:
        """A reply's first token came after so long. Later requests of the same reply find their prompt in the cache:
        what they take tells nothing of one that has not begun."""
        self.first = _moved(self.first, seconds, WEIGHT)

    def resumed(self, seconds: float) -> None:
        """A later segment's first token came after so long."""
        self.again = _moved(self.again, seconds, WEIGHT)

    def wrote(self, tokens: int, seconds: float) -> None:
        """So many tokens of one reply took so long. Long stretches count for more than short ones."""
        if tokens > 0:
            self.token = _moved(self.token, seconds / tokens, -math.expm1(-tokens / MEMORY))
            forgotten = _moved(self.quiet, self.token, -math.expm1(-tokens / LONG_MEMORY))
            self.quiet = min(self.token, forgotten)

    @property
    def begins_again(self) -> float:
        """Seconds that a further segment takes to begin, as far as one knows."""
        return self.again if self.again is not None else self.first or 0.0

    @property
    def pressure(self) -> float:
        """0 where the engine writes as fast as it can, 1 where a token takes four times as long or longer."""
        if not self.token or not self.quiet:
            return 0.0
        return min(1.0, (self.token / self.quiet - 1.0) / FULL_PRESSURE)

    def within(self, seconds: float) -> int | None:
        """Thinking tokens of a reply that has not begun and whose answer is to begin in so many seconds."""
        if self.first is None or not self.token:
            return None
        return int((seconds - self.first - self.begins_again) / self.token)

    def ahead(self, tokens: int) -> float | None:
        """Seconds until a reply that has not begun has written `tokens`; None before anything was measured."""
        if self.first is None or self.token is None:
            return None
        return self.first + tokens * self.token

    def remaining(self, tokens: int, written: int, seconds: float) -> float | None:
        """Seconds for `tokens` more, in a reply that took `seconds` for the `written` ones behind its first."""
        if written >= OWN_TOKENS:
            return tokens * seconds / written
        return None if self.token is None else tokens * self.token


class Clock:
    """Times of the segment that runs: when it was asked for, when its first tokens came, and how many came since. What
    it measures goes to its engine's pace, each token once."""

    def __init__(self) -> None:
        self._asked = self._began = self._told_at = 0.0
        self._position = self._told = 0
        self._pace: ThroughputEstimate | None = None

    @property
    def running(self) -> bool:
        return self._began > 0

    def asked(self, pace: ThroughputEstimate | None) -> None:
        """A segment is asked for; None: of an engine whose pace nobody keeps."""
        self._asked, self._began, self._pace = time.perf_counter(), 0.0, pace

    def began(self, position: int, *, first: bool) -> None:
        """The segment's first tokens are here; the reply has `position` tokens with them. `first`: of the reply."""
        self._began = self._told_at = time.perf_counter()
        self._position = self._told = position
        if self._pace is not None:
            (self._pace.began if first else self._pace.resumed)(self._began - self._asked)

    def written(self, position: int) -> tuple[int, float]:
        """Tokens that came behind the first ones, and the seconds that they took."""
        return position - self._position, time.perf_counter() - self._began

    def report(self, position: int) -> None:
        """Tells the pace what came since the last report."""
        if self.running and self._pace is not None:
            now = time.perf_counter()
            self._pace.wrote(position - self._told, now - self._told_at)
            self._told, self._told_at = position, now


def _moved(average: float | None, value: float, weight: float) -> float:
    return value if average is None else average + weight * (value - average)
