"""Steps of a thought: where one ends, and what the sentence behind its end is about to do. Pure.

Reasoning models turn at structural delimiters: most of their "wait" and "alternatively" stand right behind a blank line
(arXiv 2504.12329, section 2). A sentence that follows a delimiter is classified by its cues, which are whole words.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from controllers.policy.speculation import CUES, DELIMITERS, SENTENCE_TOKENS, CueList

Sentence = Literal["statement", "affirmation", "reflection", "verification"]
NEGATIVE: frozenset[Sentence] = frozenset({"reflection", "verification"})
# Scripts that put no space between words: their cues are found anywhere, all others as whole words only.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
LETTER = f"[^\\W{UNSPACED}]"


class Cues:
    """The cues of all languages in use, ready to be looked for."""

    def __init__(self, lists: Iterable[CueList] = CUES.values()) -> None:
        lists = tuple(lists)
        self._reflection = _words(cue for each in lists for cue in (*each.reflection, *each.verification))
        self._affirmation = _words(cue for each in lists for cue in each.affirmation)
        self._verification = _words(cue for each in lists for cue in each.verification)

    def classify(self, sentence: str) -> Sentence:
        """Any verification cue makes it a verification; else the majority decides, a tie for reflection."""
        if self._verification.search(sentence):
            return "verification"
        reflection, affirmation = len(self._reflection.findall(sentence)), len(self._affirmation.findall(sentence))
        if not reflection and not affirmation:
            return "statement"
        return "reflection" if reflection >= affirmation else "affirmation"

    def settled(self, sentence: str) -> int:
        """The end of a verification cue that no further character can take back, or 0."""
        found = self._verification.search(sentence)
        return found.end() if found and found.end() < len(sentence) else 0


class Steps:
    """Reads a thought token by token. `open` says that it stands behind a delimiter, in a sentence whose kind is not
    known yet. How the text is cut into tokens changes nothing, but for the limit on a sentence's tokens."""

    def __init__(
        self, cues: Cues, delimiters: Sequence[str] = DELIMITERS, sentence_tokens: int = SENTENCE_TOKENS
    ) -> None:
        self._cues = cues
        self._delimiter = re.compile("|".join(map(re.escape, delimiters)))
        self._ends = re.compile(rf"[.!?…][\"'”’)\]]*(?=\s)|[。！？]|(?=\n)|(?={self._delimiter.pattern})")
        self._overlap = max(map(len, delimiters)) - 1
        self._most = sentence_tokens
        self._tail = ""  # the end of the step so far, which may begin a delimiter
        self._text = ""  # of the open sentence
        self._tokens = 0
        self.open = False

    @property
    def blank(self) -> bool:
        """Whether the open sentence has not begun."""
        return self.open and not self._text.strip()

    def feed(self, piece: str, last: bool = False) -> list[Sentence]:
        """The kinds of the sentences that one more token completes; `last` says that nothing follows it."""
        kinds: list[Sentence] = []
        if self.open:
            self._tokens += 1
            self._text += piece
        else:
            self._look_for_delimiter(piece)
        while self.open:
            kind, used = self._judge(last or self._tokens >= self._most)
            if kind is None:
                break
            kinds.append(kind)
            text, self.open, self._tail = self._text, False, self._end_of(self._text[:used])
            self._look_for_delimiter(text[used:])
        return kinds

    def reopen(self) -> None:
        """The open sentence is to be written anew."""
        self.open, self._text, self._tokens = True, "", 0

    def skip(self) -> None:
        """The open sentence need not be classified."""
        if self.open:
            self.open, self._tail = False, self._end_of(self._text)

    def _look_for_delimiter(self, piece: str) -> None:
        """The sentence behind a delimiter is open from its first character on."""
        text = self._tail + piece
        found = self._delimiter.search(text)
        if found is None:
            self._tail = self._end_of(text)
        else:
            self.open, self._text, self._tokens = True, text[found.end() :], 0

    def _end_of(self, text: str) -> str:
        """What may still become a delimiter with the next characters."""
        return text[-self._overlap :] if self._overlap else ""

    def _judge(self, final: bool) -> tuple[Sentence | None, int]:
        """The kind of the open sentence, and how many of its characters that has used up."""
        text = self._text
        begin = len(text) - len(text.lstrip())
        ended = self._ends.search(text, begin) if begin < len(text) else None
        if ended is not None:
            return self._cues.classify(text[: ended.end()]), ended.end()
        if settled := self._cues.settled(text):
            return "verification", settled
        return (self._cues.classify(text), len(text)) if final else (None, 0)


def _words(cues: Iterable[str]) -> re.Pattern[str]:
    """Any of the cues as whole words, the longest first; inner blanks stand for any white space."""
    forms = [_form(cue) for cue in sorted(set(cues), key=len, reverse=True)]
    return re.compile("|".join(forms) if forms else r"(?!)", re.IGNORECASE)


def _form(cue: str) -> str:
    words = r"\s+".join(map(re.escape, cue.split()))
    before = rf"(?<!{LETTER})" if re.match(LETTER, cue.strip()[0]) else ""
    behind = rf"(?!{LETTER})" if re.match(LETTER, cue.strip()[-1]) else ""
    return before + words + behind
