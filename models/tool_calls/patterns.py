"""A tool call format in one vocabulary: what its calls look like in marked text.

In marked text each control token that the format writes is one character that no other text holds (`mark` puts it
there), so the same characters in ordinary tokens are text.
"""

import re
from collections.abc import Callable

from models.tool_calls.formats import READ_WHOLE, ToolCallFormat

HOLE = re.compile(r"\$(name|arguments|id|key|type)")
HOLES = {
    "name": "(?P<name>[^\\s\"'\\\\<>{}()\\[\\]\ufdd1-\ufdef]+?)",
    "id": '(?P<id>[^\\s"<>\ufdd1-\ufdef]+?)',
    "key": '(?P<key>[^"/<>\ufdd1-\ufdef][^"<>\ufdd1-\ufdef]*?)',
    "type": r"(?P<type>\w+)",
}
PUNCTUATION = "{}[]:,"


class CallPatterns:
    """`openings` are the texts that begin a call, each with the numbers of its spellings. Those of `at_start` count
    only where nothing of an answer has been said: they are ordinary text anywhere else."""

    def __init__(
        self, form: ToolCallFormat, mark: Callable[[str], str], unmark: Callable[[str], str], channels: bool
    ) -> None:
        self.form = form
        self.unmark = unmark
        self.whole = form.arguments in READ_WHOLE
        self.close = mark(form.close).strip()
        self.separators = form.separator + " \t\r\n"
        self.string_mark = mark('<|"|>')
        self._read_style(mark)
        spellings = [
            (mark(opening).strip() or mark(call).strip()[:1], mark(call).strip()) for opening, call in form.spellings
        ]
        bare = 0 if form.open else 1  # then the first character of a call is its opening
        self.call_start = _first(spellings[0][1])
        self.leads = [_unspaced(call[bare:].partition("$")[0]) for _, call in spellings]
        self.ends = [re.compile(loose(call.partition("$arguments")[2].strip())) for _, call in spellings]
        self.end_starts = [_first(call.partition("$arguments")[2]) for _, call in spellings]
        self.heads = [
            re.compile(r"\s*" + loose(call[bare:].partition("$arguments")[0]) + r"\s*" + self._ahead(call))
            for _, call in spellings
        ]
        self.openings: dict[str, list[int]] = {}
        for number, (opening, _) in enumerate(spellings):
            self.openings.setdefault(opening, []).append(number)
        plain = {opening for opening in self.openings if unmark(opening) == opening}
        self.at_start = set(self.openings) if not form.open else plain if channels else set()

    def _read_style(self, mark: Callable[[str], str]) -> None:
        style = self.form.style
        self.strings = style.strings if style else ()
        self.item: re.Pattern[str] | None = None
        self.item_start = self.value_end = ""
        self.line_ends_value = self.line_begins_value = False
        if style is not None:
            self.item = re.compile(loose(mark(style.head).strip()))
            self.item_start = _first(mark(style.head))
            self.value_end = mark(style.end).strip()
            self.line_begins_value = style.head.endswith("\n")
            self.line_ends_value = style.end.startswith("\n")

    def _ahead(self, call: str) -> str:
        """What must follow a head, so that a name is known to be whole."""
        if self.form.arguments == "json":
            return r"(?=\{)"
        if self.whole:
            return ""
        after = (self.item_start, _first(call.partition("$arguments")[2]), self.close)
        return f"(?={'|'.join(re.escape(text) for text in after if text)})"


def loose(text: str) -> str:
    """A pattern of `text` with its holes, as models may write it: white space and that beside punctuation is free."""
    parts: list[str] = []
    seen: set[str] = set()
    for at, part in enumerate(HOLE.split(text)):
        if at % 2:
            parts.append(HOLES[part] if part not in seen else f"(?P={part})")
            seen.add(part)
            continue
        runs = re.findall(r"\s+|[{}\[\]:,]|[^\s{}\[\]:,]+", part)
        for index, run in enumerate(runs):
            free = run in PUNCTUATION
            before, behind = free and index > 0, free and index + 1 < len(runs)
            parts.append(r"\s*" if run.isspace() else r"\s*" * before + re.escape(run) + r"\s*" * behind)
    return re.sub(r"(\\s\*)+", r"\\s*", "".join(parts))


def _first(text: str) -> str:
    """The beginning of a text, up to its first hole or white space."""
    return re.split(r"\$|\s", text.strip(), maxsplit=1)[0]


def _unspaced(text: str) -> str:
    return "".join(text.split())
