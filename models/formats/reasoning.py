"""Reasoning formats: how one kind of model is asked to think, and how it writes its thinking. A format is data.

Every text is in the model's own spelling. Where a part of it is one control token of the vocabulary, only that token
counts as it. `docs/families.md` explains each field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from models.tool_calls.formats import ToolCallFormat

Mode = Literal["think", "no_think"]
Scope = Literal["thinking", "reply"]
Section = Literal["start", "budget", "reasoning", "answer", "after"]
Pair = tuple[str, str]

MODES: tuple[Mode, ...] = ("think", "no_think")
WRAP_UP = "\n\nConsidering the limited time, I have to give the answer based on the thinking so far.\n"
NOTHING: Mapping[Any, Any] = MappingProxyType({})
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class BudgetArgument:
    """The template's argument that names a budget in tokens, and the numbers that the model was trained on."""

    argument: str
    steps: tuple[int, ...] = ()
    __pydantic_config__ = STRICT

    def fitting(self, tokens: int) -> int:
        """The largest trained number within `tokens`, or the smallest one."""
        within = [step for step in self.steps if step <= tokens]
        return max(within, default=min(self.steps, default=tokens)) if self.steps else tokens


@dataclass(frozen=True, slots=True)
class History:
    """How the template wants earlier turns of the assistant: the field of their thinking (`blocks`: a content part;
    `thoughts`: a block of a content that is an object), what stands for no content, arguments as an object or as text,
    and the form of the ids of calls (`$short`: nine letters and digits)."""

    thinking: str = "reasoning_content"
    silent: Literal["empty", "null"] = "empty"
    arguments: Literal["object", "text"] = "object"
    ids: str = ""
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFormat:
    """The conventions of one kind of model.

    `thinking` are the tags around thinking, `answer` those around an answer where it has some, each opening with its
    closing; `between` is layout between the messages of one reply. `direct` are the tags around an answer without
    thinking (LHRM's `<no_think>`): a model with both chooses its mode by its first token. A model with a `budget` pair
    declares its own budget before it replies, and a reply stands between the `solution` tags.

    `modes` are the template's arguments by mode, `behind` the text that the server writes behind the prompt, `system`
    the words in the system message; a mode that is in none of them does not exist. `efforts` are the template's words
    for each effort, under `argument` its name.

    `scope` says what a budget counts: the tokens of the thinking, or of the whole reply. `wrap_up` is the phrase that
    ends the scope kindly when a budget is nearly used; `closing` is the text that ends it.
    """

    name: str
    thinking: Pair | None = None
    answer: tuple[Pair, ...] = ()
    between: tuple[str, ...] = ()
    direct: Pair | None = None
    budget: Pair | None = None
    solution: Pair | None = None
    scope: Scope | None = None
    modes: Mapping[Mode, Mapping[str, Any]] = field(default_factory=lambda: NOTHING)
    behind: Mapping[Mode, str] = field(default_factory=lambda: NOTHING)
    system: Mapping[Mode, str] = field(default_factory=lambda: NOTHING)
    efforts: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    budget_argument: BudgetArgument | None = None
    closing: str = ""
    wrap_up: str = ""
    history: History = field(default_factory=History)
    tools: ToolCallFormat | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        counted = {"thinking": self.thinking, "reply": self.solution}.get(self.scope or "")
        if counted and not self.closing.startswith(counted[1]):
            raise ValueError(f"closing: must begin with {counted[1]!r}, since budgets count up to it")

    @property
    def able(self) -> tuple[Mode, ...]:
        """The modes that the model has."""
        return tuple(mode for mode in MODES if mode in self.modes or mode in self.behind or mode in self.system)

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

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of thinking and answer, without those of calls."""
        pairs = (self.thinking, *self.answer, self.direct, self.budget, self.solution)
        return (*(tag for pair in pairs if pair for tag in pair if tag), *self.between)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that holds a meaning in a reply."""
        return (*self.tags, self.closing, *self.behind.values(), *(self.tools.texts if self.tools else ()))


_ADAPTER: TypeAdapter[ReasoningFormat] = TypeAdapter(ReasoningFormat)


def read_formats(
    tables: Mapping[str, Mapping[str, Any]], known: Mapping[str, ReasoningFormat] = NOTHING
) -> dict[str, ReasoningFormat]:
    """The formats that `tables` describe; `like` names another table, or a `known` format, whose fields are taken where
    the table has none. Raises `ValueError`, one line a fault, each with its key."""
    read: dict[str, ReasoningFormat] = {}
    faults: list[str] = []
    for name in tables:
        try:
            table = _with_defaults(_inherited(name, tables, known, ()))
            read[name] = _ADAPTER.validate_python({**table, "name": name})
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                key = ".".join(map(str, ("families", name, *fault["loc"])))
                message = "unknown key" if fault["type"] == "unexpected_keyword_argument" else fault["msg"]
                faults.append(f"{key}: {message.removeprefix('Value error, ')}")
        except ValueError as error:
            faults.append(f"families.{name}: {error}")
    if faults:
        raise ValueError("\n".join(faults))
    return read


def _inherited(
    name: str, tables: Mapping[str, Mapping[str, Any]], known: Mapping[str, ReasoningFormat], below: tuple[str, ...]
) -> dict[str, Any]:
    own = dict(tables[name])
    like = own.pop("like", None)
    if like is None:
        return own
    if like in tables and like != name and like not in below:
        return {**_inherited(like, tables, known, (*below, name)), **own}
    if like in known:
        return {**{each.name: getattr(known[like], each.name) for each in fields(known[like])}, **own}
    raise ValueError(f"like: unknown family {like!r}; known: {', '.join([*tables, *known])}")


def _with_defaults(table: dict[str, Any]) -> dict[str, Any]:
    """What follows from other fields: the scope of budgets, and what ends thinking."""
    scope = "thinking" if table.get("thinking") else "reply" if table.get("solution") else None
    ending = (table.get("thinking") or table.get("solution") or ("",))[-1]
    answer = table.get("answer")
    one_pair = isinstance(answer, list) and all(isinstance(part, str) for part in answer)
    return {
        "scope": scope,
        "wrap_up": WRAP_UP if scope else "",
        "closing": ending,
        **table,
        "answer": [answer] if one_pair and answer else answer or [],
    }


def effort_word(efforts: Mapping[str, str], effort: str, order: Iterable[str]) -> str:
    """The template's word for an effort: its own, or that of the nearest one that the template knows."""
    ranks = {name: rank for rank, name in enumerate(order)}
    known = [name for name in ranks if name in efforts]
    return efforts[min(known, key=lambda name: (abs(ranks[name] - ranks[effort]), ranks[name]))]
