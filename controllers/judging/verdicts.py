"""What is judged, and what a judge's answer says. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from models.judge_prompts.families import BOXED, JudgeFamily, Kind

END_OF_THINKING = "</think>"


@dataclass(frozen=True, slots=True)
class JudgeComparison:
    """One question to a judge: which of two replies is better, or whether one meets `against`.

    `against` is the reference or the rubric. Of a pair it is empty, and `second` is the other reply.
    """

    kind: Kind
    query: str
    first: str
    second: str = ""
    against: str = ""

    @property
    def identical(self) -> bool:
        """Two replies with the same text: there is nothing to ask."""
        return self.kind == "pair" and self.first == self.second

    @property
    def turned(self) -> bool:
        """Whether the pair stands the other way round than in `key`."""
        return self.kind == "pair" and self.first > self.second

    @property
    def key(self) -> bytes:
        """The content as a digest: the same for a pair whichever way round it stands."""
        ends = sorted((self.first, self.second)) if self.kind == "pair" else (self.first, self.second)
        return digest(self.kind, self.query, *ends, self.against)

    def values(self, swapped: bool) -> dict[str, str]:
        """What goes into the places of the template, with the two replies swapped or not."""
        if self.kind == "pair":
            first, second = (self.second, self.first) if swapped else (self.first, self.second)
            return {"query": self.query, "first": first, "second": second}
        return {"query": self.query, "reply": self.first, self.kind: self.against}


def digest(*parts: object) -> bytes:
    """A digest that keeps its parts apart."""
    hashed = sha256()
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        hashed.update(len(text).to_bytes(8, "big") + text)
    return hashed.digest()


def verdict_in(answer: str, family: JudgeFamily, kind: Kind) -> float | None:
    """The verdict of an answer, as the first reply's share. None: there is none.

    The last verdict behind the first end of thinking counts. 1 is for the first reply or yes, 0 for the second or no,
    0.5 a draw. A grade of a single reply is its place on the scale from 0 to 1.
    """
    if END_OF_THINKING in answer:
        answer = answer.partition(END_OF_THINKING)[2]
    written, outcomes = _last_verdict(answer, family.syntax), family.outcomes[kind]
    if isinstance(outcomes, range):
        return _share([float(grade) for grade in written if re.fullmatch(r"\d+(\.\d+)?", grade)], outcomes)
    shares: dict[tuple[str, ...], float] = {outcomes[:1]: 1, outcomes[1:]: 0}
    return shares.get(written)


def _share(grades: Sequence[float], scale: range) -> float | None:
    """The share that one grade is of the scale, or that two grades give the first reply."""
    lowest, highest = scale[0], scale[-1]
    if not grades or not lowest <= min(grades) <= max(grades) <= highest:
        return None
    first, *second = grades
    if second:
        return ((first > second[0]) - (first < second[0]) + 1) / 2
    return (first - lowest) / (highest - lowest)


def _last_verdict(text: str, syntax: str) -> tuple[str, ...]:
    """The words of the last verdict in a text; none where there is no verdict."""
    if syntax == BOXED:
        boxed = last_boxed(text)
        return () if boxed is None else (boxed,)
    matches = list(re.finditer(syntax, text))
    return matches[-1].groups() if matches else ()


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` whose braces balance."""
    last, end = -1, 0
    openings: list[int] = []  # of the braces that are open; those that are no box's are -1
    for brace in re.finditer(r"\\boxed\{|[{}]", text):
        if brace[0] != "}":
            openings.append(-1 if brace[0] == "{" else brace.end())
        elif openings and (opening := openings.pop()) > last:
            last, end = opening, brace.start()
    return None if last < 0 else text[last:end]


def final_answer(reply: str) -> str:
    """What makes replies one team: the last boxed answer without its spaces, else the whole text without its edges."""
    boxed = last_boxed(reply)
    return reply.strip() if boxed is None else "".join(boxed.split())
