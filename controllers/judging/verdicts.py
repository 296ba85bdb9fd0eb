"""What is judged, and what a judge's answer says. Pure."""

import re
from dataclasses import dataclass
from hashlib import sha256

from controllers.judging.tournament import Side
from models.judge_prompts.families import Kind, Syntax

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
        """What goes into the places of the template, the two replies swapped if so said."""
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


def verdict_in(answer: str, syntax: Syntax, verdicts: tuple[str, str]) -> Side | None:
    """Which verdict an answer gives: its last one behind the first end of thinking, matched exactly, else none."""
    if END_OF_THINKING in answer:
        answer = answer.partition(END_OF_THINKING)[2]
    said = last_boxed(answer) if syntax == "boxed" else last_bracketed(answer)
    if said == verdicts[0]:
        return 0
    return 1 if said == verdicts[1] else None


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


def last_bracketed(text: str) -> str | None:
    """The content of the last `[[…]]`."""
    found = re.findall(r"\[\[([^\[\]]*)\]\]", text)
    return found[-1] if found else None


def final_answer(reply: str) -> str:
    """What makes replies one team: the last boxed answer without its spaces, else the whole text without its edges."""
    boxed = last_boxed(reply)
    return reply.strip() if boxed is None else "".join(boxed.split())
