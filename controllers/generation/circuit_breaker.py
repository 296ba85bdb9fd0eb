"""A circuit breaker: an engine that failed is left alone for a while, then tried again. Pure."""


class CircuitBreaker:
    """One for each engine that routes can do without. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.degraded = False  # whether the engine's last answer was a failure
        self._rest = self._until = 0.0

    def try_pass(self, now: float) -> bool:
        """Whether the caller may ask the engine. When the rest is over one caller may, to try."""
        if self.degraded and now < self._until:
            return False
        self._until = now + self._rest
        return True

    def failed(self, now: float, rest: float) -> None:
        """It is left alone for `rest` seconds from now on."""
        self.degraded, self._rest, self._until = True, rest, now + rest

    def succeeded(self) -> None:
        self.degraded = False
