"""How fast an engine writes just now, measured on the replies that it has given. What time estimates stand on."""

WEIGHT = 0.2  # of the newest reply
OWN_TOKENS = 16  # after so many tokens a reply's own pace is the better witness


class Pace:
    """Seconds to the first token and seconds per token of one reply, as moving averages. One for each engine."""

    __slots__ = ("first", "token")

    def __init__(self) -> None:
        self.first: float | None = None
        self.token: float | None = None

    def measured(self, first: float, tokens: int, seconds: float) -> None:
        """One engine request: `tokens` came in the `seconds` behind its first one, which took `first` seconds."""
        self.first = _moved(self.first, first)
        if tokens:
            self.token = _moved(self.token, seconds / tokens)

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


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)
