"""Whether an engine that helps out is there: after a failure it is left alone for a while, then tried again. Pure."""


class CircuitBreaker:
    """One for each engine that routes can do without. Times are seconds of any with_timeout clock."""

    __slots__ = ("_rest", "_until", "degraded")

    def __init__(self) -> None:
        self.degraded = False  # whether the engine's last answer was a failure
        self._rest = self._until = 0.0

    def closed(self, now: float) -> bool:
        """Whether to do without the engine now. When the rest is over one caller is let through, to try."""
        if not self.degraded:
            return False
        if now < self._until:
            return True
        self._until = now + self._rest
        return False

    def failed(self, now: float, rest: float) -> None:
        """It is left alone for `rest` seconds from now on."""
        self.degraded, self._rest, self._until = True, rest, now + rest

    def answered(self) -> None:
        self.degraded = False
