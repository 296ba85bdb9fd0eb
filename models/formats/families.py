"""Families: how a kind of model writes its thinking. A family is data; adding one is one entry here and one test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from models.engines.base import Tokenizer
from models.tool_calls.hermes import HERMES, ToolFormat

Mode = Literal["think", "no_think"]
Scope = Literal["thinking", "reply"]
Section = Literal["start", "budget", "reasoning", "answer", "after"]


@dataclass(frozen=True, slots=True)
class Family:
    """The conventions of one kind of model.

    `thinking` is the pair of tags around thinking, `direct` the pair around an answer without thinking (LHRM's
    `<no_think>`); a family with both lets the model choose its mode by its first token. `prefixes` is the text forced
    at the beginning of the reply for each mode that the family has. `template_opens` says that the model's chat
    template itself already wrote the opening tag.

    `scope` says what a budget of this family counts: the tokens of its thinking, or of its whole reply. `wrap_up` is
    the phrase that ends the scope kindly when a budget is nearly used; `closing` is the text that ends it. A family
    with a `budget` pair declares its own budget before it replies, and a reply stands between the `solution` tags; the
    same field, written by the server, sets a client's budget. `tools` is how it writes tool calls into its answers.
    """

    name: str
    thinking: tuple[str, str] | None = None
    direct: tuple[str, str] | None = None
    budget: tuple[str, str] | None = None
    solution: tuple[str, str] | None = None
    scope: Scope | None = None
    prefixes: Mapping[Mode, str] = field(default_factory=lambda: MappingProxyType({"no_think": ""}))
    template_opens: bool = False
    wrap_up: str = ""
    closing: str = ""
    tools: ToolFormat | None = HERMES

    @property
    def chooses(self) -> bool:
        """Whether the model's own first token decides the mode, so that mode `auto` exists."""
        return self.direct is not None

    @property
    def to_solution(self) -> str:
        """What leads from within a budget field to the solution."""
        return "" if self.budget is None or self.solution is None else f"{self.budget[1]}{self.solution[0]}"

    def budget_field(self, tokens: int) -> str:
        """A reply's beginning that holds the model to `tokens`: its budget field, filled, and the solution opened."""
        return f"{self.budget[0]}{tokens}{self.to_solution}" if self.budget and self.solution else ""


WRAP_UP = "\n\nConsidering the limited time, I have to give the answer based on the thinking so far.\n"

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="lhrm",  # arXiv 2505.14631: <think> … </think> answer | <no_think> answer </no_think>
                thinking=("<think>", "</think>"),
                direct=("<no_think>", "</no_think>"),
                prefixes=MappingProxyType({"think": "<think>", "no_think": "<no_think>"}),
                scope="thinking",
                wrap_up=WRAP_UP,
                closing="</think>",
            ),
            Family(
                name="qwen3",  # no thinking is an empty block, written by the server in place of the template
                thinking=("<think>", "</think>"),
                prefixes=MappingProxyType({"think": "<think>\n", "no_think": "<think>\n\n</think>\n\n"}),
                scope="thinking",
                wrap_up=WRAP_UP,
                closing="</think>\n\n",
            ),
            Family(
                name="deepseek_r1",  # the template ends with "<think>\n"
                thinking=("<think>", "</think>"),
                prefixes=MappingProxyType({"think": "", "no_think": "\n</think>\n\n"}),
                template_opens=True,
                scope="thinking",
                wrap_up=WRAP_UP,
                closing="</think>\n\n",
                tools=None,
            ),
            Family(
                name="selfbudgeter",  # arXiv 2505.11274: <budget>N</budget><solution> thinking and answer </solution>
                budget=("<budget>", "</budget>"),
                solution=("<solution>", "</solution>"),
                prefixes=MappingProxyType({"think": ""}),
                scope="reply",
                wrap_up="\nThe final answer is",
                closing="</solution>",
            ),
            Family(name="plain"),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Tag:
    """One control tag: where it leads from each section. A missing section means the tag is plain text there."""

    text: str
    leads: Mapping[Section, Section]


@dataclass(frozen=True, slots=True)
class Tags:
    """A family's tags against one vocabulary: by id where the tag is one token, by text where it is not."""

    by_id: Mapping[int, Tag]
    by_text: tuple[Tag, ...]
    begins: Section


def compile_tags(family: Family, tokenizer: Tokenizer) -> Tags:
    """Resolves a family's tags against a vocabulary.

    Opening tags count only at the start of a reply (a later `<think>` is text; what stands before a `<solution>` may
    have begun the answer already); closing tags close what is open and are swallowed anywhere else.
    """
    tags: list[Tag] = []
    if family.thinking:
        opening, closing = family.thinking
        tags.append(Tag(opening, {"start": "reasoning"}))
        tags.append(Tag(closing, {"start": "start", "reasoning": "answer", "answer": "answer"}))
    if family.direct:
        opening, closing = family.direct
        tags.append(Tag(opening, {"start": "answer"}))
        tags.append(Tag(closing, {"start": "start", "reasoning": "reasoning", "answer": "answer"}))
    if family.budget:
        opening, closing = family.budget
        tags.append(Tag(opening, {"start": "budget"}))
        tags.append(Tag(closing, {"start": "start", "budget": "start", "answer": "answer"}))
    if family.solution:
        opening, closing = family.solution
        tags.append(Tag(opening, {"start": "answer", "budget": "answer", "answer": "answer"}))
        tags.append(Tag(closing, {"start": "start", "answer": "after", "after": "after"}))
    by_id: dict[int, Tag] = {}
    by_text: list[Tag] = []
    for tag in tags:
        token_id = tokenizer.control_id(tag.text)
        if token_id is None:
            by_text.append(tag)
        else:
            by_id[token_id] = tag
    return Tags(by_id, tuple(by_text), "reasoning" if family.template_opens else "start")
