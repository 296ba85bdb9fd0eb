"""Stop strings over a stream of text. Pure: engines use it on replies, controllers on the answer alone."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text through until one of the stop strings is complete, holding back only what may still become one.

    The result does not depend on how the text was cut into pieces: the match that is complete earliest wins, and of
    those complete at the same character, the longest. Each character costs a step of a Knuth-Morris-Pratt automaton per
    stop string, so a long stop string cannot make a token dear.
    """

    __slots__ = ("_borders", "_held", "_include", "_initials", "_states", "_stops", "matched")

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        if not all(stops):
            raise ValueError("a stop string cannot be empty")
        self._stops = tuple(stops)
        self._borders = tuple(_borders(stop) for stop in self._stops)
        self._initials = frozenset(stop[0] for stop in self._stops)
        self._states = [0] * len(self._stops)  # characters of each stop string matched so far
        self._held = ""  # the longest of those prefixes
        self._include = include_stop
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Takes the next text, returns what can be released now; nothing once a stop string has matched."""
        if self.matched is not None:
            return ""
        if not self._held and self._initials.isdisjoint(text):
            return text
        for read, character in enumerate(text, 1):
            self._advance(character)
            if self.matched is not None:
                seen = self._held + text[:read]
                self._held = ""
                return seen if self._include else seen[: len(seen) - len(self.matched)]
        seen = self._held + text
        released = len(seen) - max(self._states)
        self._held = seen[released:]
        return seen[:released]

    def flush(self) -> str:
        """The text has ended: what was held back is plain text after all."""
        held, self._held = self._held, ""
        self._states = [0] * len(self._stops)
        return held

    def _advance(self, character: str) -> None:
        for index, stop in enumerate(self._stops):
            state = self._states[index]
            borders = self._borders[index]
            while state and stop[state] != character:
                state = borders[state - 1]
            if stop[state] == character:
                state += 1
            if state < len(stop):
                self._states[index] = state
            elif self.matched is None or len(stop) > len(self.matched):
                self.matched = stop


def _borders(text: str) -> list[int]:
    """For every prefix of `text`, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(text)
    length = 0
    for index in range(1, len(text)):
        while length and text[index] != text[length]:
            length = borders[length - 1]
        if text[index] == text[length]:
            length += 1
        borders[index] = length
    return borders
