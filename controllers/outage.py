"""Whether an engine that helps out is there: after a failure it is left alone for a while, then tried again. Pure."""


class Outage:
    """One for each engine that routes can do without. Times are seconds of any steady clock."""

    __slots__ = ("_failures", "_until", "rest")

    def __init__(self, rest: float) -> None:
        self.rest = rest
        self._until = 0.0
        self._failures = 0

    @property
    def degraded(self) -> bool:
        """Whether the engine's last answer was a failure."""
        return self._failures > 0

    def closed(self, now: float) -> bool:
        """Whether to do without the engine now. When the rest is over one caller is let through, to try."""
        if not self._failures:
            return False
        if now < self._until:
            return True
        self._until = now + self.rest
        return False

    def failed(self, now: float) -> None:
        self._failures += 1
        self._until = now + self.rest

    def answered(self) -> None:
        self._failures = 0
