"""Calls of custom tools: the one string in the arguments that the model writes, while it writes them."""

import json
import re

from server.apis.shared.messages import CUSTOM_INPUT

HEAD = re.compile(rf'\s*\{{\s*"{CUSTOM_INPUT}"\s*:\s*"')
HIGH = r"u[dD][89abAB][0-9a-fA-F]{2}"  # the first of a pair, unless something else follows
ESCAPED = rf'["\\/bfnrt]|(?!{HIGH})u[0-9a-fA-F]{{4}}|{HIGH}(?:\\u[0-9a-fA-F]{{4}}|(?=[^\\]|\\[^u]))'
WHOLE = re.compile(rf'(?:[^"\\]|\\(?:{ESCAPED}))*')
"""As much of a JSON string as has whole characters: an escape, or the second of a pair of them, may be yet to come."""


class CustomInput:
    """Takes the arguments piece by piece and gives the pieces of the string. What is no such object gives nothing."""

    __slots__ = ("_raw", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._raw = ""

    def feed(self, text: str) -> str:
        self._raw += text
        if not self.begun:
            head = HEAD.match(self._raw)
            if head is None:
                return ""
            self.begun = True
            self._raw = self._raw[head.end() :]
        known = WHOLE.match(self._raw)
        assert known is not None, "it matches nothing, too"
        self._raw = self._raw[known.end() :]
        piece: str = json.loads(f'"{known[0]}"', strict=False)
        return piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def end(self) -> str:
        """What there is beside the pieces: the arguments themselves, where the model has written them otherwise."""
        return "" if self.begun else self._raw


def input_of(arguments: str) -> str:
    """The input that such arguments hold."""
    whole = CustomInput()
    return whole.feed(arguments) + whole.end()
