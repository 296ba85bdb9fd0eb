"""A reasoning format in one vocabulary: where each tag leads from where a reply stands.

Tags are looked for in marked text: each control token that the format writes is one character that no text holds. So a
tag of one token, of several, and of plain characters are one case, and a tag that is a token is known by its id alone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from models.engines.base import Tokenizer
from models.formats.reasoning import ReasoningFormat, Section
from models.tool_calls.patterns import CallPatterns

FIRST_MARK = 0xFDD1  # noncharacters: never valid for interchange, so no text holds them; 0xFDD0 is the tokenizer's seam
MARKS = 31
QUOTES = r"`|['\"“‘«]\Z"  # what may make the tag behind it text

Stage = Literal["start", "budget", "reasoning", "closed", "shut", "begun", "said", "resumed", "final", "after"]
"""Where a reply stands. Of an answer: right behind the end of the thinking (`closed`; `shut` where no more thinking may
follow), before any text of it (`begun`), and behind some (`said`). Where the server has closed the thinking, the model
may go on with it in the answer (`resumed`) until its own closing tag, which is dropped (`final`)."""

SECTION_OF: Mapping[Stage, Section] = {
    "start": "start",
    "budget": "budget",
    "reasoning": "reasoning",
    "closed": "answer",
    "shut": "answer",
    "begun": "answer",
    "said": "answer",
    "resumed": "answer",
    "final": "answer",
    "after": "after",
}


@dataclass(frozen=True, slots=True)
class Tag:
    """A text that holds a meaning, as a model of another vocabulary is to read it: control tokens as themselves."""

    text: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Where a tag leads; `closers` end the answer that it opens. `calls`: it begins a call. A `quotable` one is text
    within code and behind a quotation mark: the answer speaks of it."""

    to: Stage
    closers: tuple[str, ...] = ()
    calls: bool = False
    quotable: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What holds a meaning at one stage, by its marked text.

    `alert` finds what cannot be told apart from a tag by itself (None: only control tokens can). `spaces`: white space
    at the end of the text may be layout.
    """

    stage: Stage
    leads: Mapping[str, Lead]
    pattern: re.Pattern[str] | None
    alert: re.Pattern[str] | None
    spaces: bool


class Tags:
    """Build it with `compile_tags`. `by_id` are the control tokens, `by_text` the tags that hold none of them."""

    def __init__(self, form: ReasoningFormat, tokenizer: Tokenizer) -> None:
        self.form = form
        self.text_of: Callable[[int], str] = lru_cache(4096)(tokenizer.token_text)
        controls: dict[str, int] = {}
        for text in form.texts:
            for token_id in tokenizer.encode_control(text):
                spelled = tokenizer.token_text(token_id)
                if spelled.strip() and spelled in text and tokenizer.control_id(spelled) == token_id:
                    controls[spelled] = token_id
        if len(controls) > MARKS:
            raise ValueError(f"family {form.name!r} writes {len(controls)} control tokens, more than {MARKS}")
        self._marks = {text: chr(FIRST_MARK + number) for number, text in enumerate(controls)}
        self.marks: Mapping[int, str] = {controls[text]: mark for text, mark in self._marks.items()}
        self.texts: Mapping[str, str] = {mark: text for text, mark in self._marks.items()}
        silent = {mark for token_id, mark in self.marks.items() if token_id in tokenizer.eos_ids}
        self._shown = {ord(mark): "" if mark in silent else text for mark, text in self.texts.items()}
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.by_id: Mapping[int, Tag] = {token_id: Tag(text) for text, token_id in controls.items()}
        self.by_text = tuple(Tag(text) for text in dict.fromkeys(form.tags) if self.mark(text) == text)
        self.ends_turns = tokenizer.special_texts.difference(self._marks)
        spelled = "|".join(re.escape(self.mark(text)) for text in sorted(form.tags, key=len, reverse=True)) or r"(?!)"
        self.any_tag = re.compile(spelled)
        self.last_tags = re.compile(rf"(?:(?:{spelled})\s*)+\Z")
        self._places: dict[tuple[Stage, tuple[str, ...], bool], Place] = {}

    def mark(self, text: str) -> str:
        """Our own text with its control tokens as marks."""
        return self._controls.sub(lambda found: self._marks[found[0]], text)

    def unmark(self, text: str) -> str:
        """The text that a client reads."""
        return text.translate(self._shown)

    @cached_property
    def calls(self) -> CallPatterns | None:
        return self._calls(self.mark)

    @cached_property
    def spelled_calls(self) -> CallPatterns | None:
        """Calls whose tags are written in ordinary text, though there are tokens for them."""
        calls = self.calls
        return None if calls is None or all(calls.unmark(text) == text for text in calls.openings) else self._calls(str)

    def _calls(self, mark: Callable[[str], str]) -> CallPatterns | None:
        form = self.form
        channels = any(opening for opening, _ in form.answer)
        return None if form.tools is None else CallPatterns(form.tools, mark, self.unmark, channels)

    def place(self, stage: Stage, closers: tuple[str, ...], calls: bool) -> Place:
        """What holds a meaning at a stage; where `calls` are read, theirs too."""
        key = stage, closers, calls
        if key not in self._places:
            self._places[key] = self._place(*key)
        return self._places[key]

    def _place(self, stage: Stage, closers: tuple[str, ...], calls: bool) -> Place:
        leads = {self.mark(text): lead for text, lead in _leads(self.form, stage, closers).items()}
        if calls and self.calls is not None and stage not in ("budget", "after"):
            silent = stage in ("start", "closed", "shut", "begun")
            begins = (text for text in self.calls.openings if silent or text not in self.calls.at_start)
            leads = {**{text: Lead(stage, closers, calls=True) for text in begins}, **leads}
            if self.spelled_calls is not None and stage != "reasoning":
                spelled = dict.fromkeys(self.spelled_calls.openings, Lead(stage, closers, calls=True, quotable=True))
                leads = {**spelled, **leads}
        spaces = bool(leads) and (stage == "start" or (calls and SECTION_OF[stage] == "answer"))
        firsts = {text[0] for text in leads if text[0] not in self.texts}
        quotes = [QUOTES] * any(lead.quotable for lead in leads.values())
        alerts = quotes + [f"[{re.escape(''.join(sorted(firsts)))}]"] * bool(firsts) + [r"\s\Z"] * spaces
        longest_first = sorted(leads, key=len, reverse=True)
        return Place(
            stage,
            leads,
            re.compile("|".join(map(re.escape, longest_first))) if leads else None,
            re.compile("|".join(alerts)) if alerts else None,
            spaces,
        )


def compile_tags(form: ReasoningFormat, tokenizer: Tokenizer) -> Tags:
    """Resolves a format's tags against a vocabulary, which keeps them from clients from then on."""
    tokenizer.protect(form.texts)
    return Tags(form, tokenizer)


def _leads(form: ReasoningFormat, stage: Stage, closers: tuple[str, ...]) -> dict[str, Lead]:
    """Where each tag leads from a stage; a tag that leads nowhere is text.

    An opening tag counts wherever the answer does not quote it, so a reply that thinks although it was told not to, or
    once more, is read as thinking. Behind the end of the thinking one more closing tag is dropped, any further one is
    text. Behind a cut of the thinking no more may follow: an opening tag is text, and one closing tag is dropped.
    """
    leads: dict[str, Lead] = {}
    if stage == "start":
        strays = (form.direct, form.budget, form.solution, *form.answer)
        leads |= {pair[1]: Lead("start") for pair in strays if pair}
        leads |= {text: Lead("start") for text in form.between}
        for opening in dict.fromkeys(opening for opening, _ in form.answer if opening):
            leads[opening] = Lead("begun", tuple(closing for first, closing in form.answer if first == opening))
        if form.direct:
            leads[form.direct[0]] = Lead("begun", form.direct[1:])
        if form.budget:
            leads[form.budget[0]] = Lead("budget")
    if form.thinking:
        opening, closing = form.thinking
        ends = tuple(closing for begins, closing in form.answer if not begins)
        behind = Lead("begun", ends) if ends else Lead("start" if form.answer else "closed")
        if stage in ("start", "closed", "begun"):
            leads[opening] = Lead("reasoning")
        if stage in ("start", "reasoning"):
            leads[closing] = behind
        if stage == "said":
            leads[opening] = Lead("reasoning", quotable=True)
        if stage == "closed":
            leads[closing] = Lead("begun")
        if stage in ("shut", "resumed"):
            leads[closing] = Lead("final", quotable=True)
    if form.budget and stage == "budget":
        leads[form.budget[1]] = Lead("start")
    if form.solution and stage != "after" and not closers:
        leads[form.solution[0]] = Lead("begun", form.solution[1:])
    if form.solution and stage == "after":
        leads[form.solution[1]] = Lead("after")
    for closer in closers:
        ended: Stage = "after" if form.solution else "said" if form.direct else "start"
        leads[closer] = Lead(ended)
    return leads
