"""Every control field that a request may carry: how it is read, and what may stand in it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NoReturn, Protocol, TypeGuard, get_args

from controllers.policy.speculation import LENGTHS
from models.formats.reasoning import Scope

Wish = Literal["think", "no_think", "auto"]
ChosenBy = Literal[
    "client",
    "key",
    "route",
    "cap",
    "model",
    "threshold",
    "reserve",
    "ask",
    "hint",
    "always",
    "never",
    "random",
    "draft",
    "agree",
    "chain",
    "classifier",
    "deadline",
    "load",
]
Cut = Literal["line_end", "wrap_up", "hard"]
CutBy = Literal["budget", "reserve", "client", "loop", "settled", "deadline"]
MOST_REPLIES = 64  # that one request may have drawn and ranked
EFFORTS: Mapping[str, int] = MappingProxyType(
    {"minimal": 128, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
)
"""Thinking tokens of each effort, where a route does not say otherwise. The effort `none` is no thinking."""

UNLIMITED = -1


class PolicyError(Exception):
    """The request's controls cannot be honoured. `field` is the one to change."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class ParsedControl:
    """What one field of a request said. None: nothing about it. An `effort` stands for a budget of the route's; one
    that `yields` says only what the rest of the request leaves open, one that is `counted` has its budget beside it. An
    `adaptive` mode is left to the route."""

    field: str
    mode: Wish | None = None
    threshold: float | None = None
    show: bool | None = None
    best_of: int | None = None
    budget: int | None = None
    effort: str | None = None
    yields: bool = False
    counted: bool = False
    adaptive: bool = False
    scope: Scope | None = None
    graceful: bool | None = None
    prefill: bool | None = None
    target: bool | None = None
    early_exit: bool | None = None
    stops_loops: bool = False
    length: tuple[str, int] | None = None
    deadline: float | None = None


class Reader(Protocol):
    """Reads the value of a field. `schema` is the JSON schema of the values that it takes; what it refuses beyond that
    depends on the rest of the request."""

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]: ...


@dataclass(frozen=True, slots=True)
class _Value:
    """A reader of one value."""

    schema: Mapping[str, Any]
    read: Callable[[Any, str], Iterator[ParsedControl]]

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        return self.read(value, field)


def _reads(**schema: Any) -> Callable[[Callable[[Any, str], Iterator[ParsedControl]]], _Value]:
    return lambda read: _Value(schema, read)


BOOLEAN = {"type": "boolean"}


def _wrong(field: str, expected: str) -> NoReturn:
    raise PolicyError(f"{field}: expected {expected}", field)


def _is_wish(value: object) -> TypeGuard[Wish]:
    return value in get_args(Wish)


UNSAID = ("auto", "default", "")
"""Efforts by which clients say that they name none."""


@_reads(enum=["none", *EFFORTS, *UNSAID])
def _effort(value: Any, field: str) -> Iterator[ParsedControl]:
    if value in UNSAID:
        return
    if value == "none":
        yield ParsedControl(field, mode="no_think")
    elif isinstance(value, str) and value in EFFORTS:
        yield ParsedControl(field, mode="think", effort=value)
    else:
        _wrong(field, "one of none, " + ", ".join(EFFORTS))


@_reads(**_effort.schema)
def _overall_effort(value: Any, field: str) -> Iterator[ParsedControl]:
    """Anthropic's effort is for thinking and answer together: it stands beside any setting of the thinking."""
    for said in _effort(value, field):
        yield replace(said, yields=said.effort is not None)


@_reads(**BOOLEAN)
def _switch(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, mode="think" if value else "no_think")


@_reads(type="integer", minimum=UNLIMITED, exclusiveMaximum=2**31)
def _budget(value: Any, field: str) -> Iterator[ParsedControl]:
    if isinstance(value, bool) or not isinstance(value, int) or not UNLIMITED <= value < 2**31:
        _wrong(field, "a number of tokens, or -1 for no limit")
    yield ParsedControl(field, budget=value)


@_reads(enum=get_args(Scope))
def _scope(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, str) or value not in get_args(Scope):
        _wrong(field, "one of " + ", ".join(get_args(Scope)))
    yield ParsedControl(field, scope=value)  # type: ignore[arg-type]


@_reads(enum=["graceful", "hard"])
def _cut(value: Any, field: str) -> Iterator[ParsedControl]:
    if value not in ("graceful", "hard"):
        _wrong(field, "graceful or hard")
    yield ParsedControl(field, graceful=value == "graceful")


@_reads(**BOOLEAN)
def _prefill(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, prefill=value)


@_reads(**BOOLEAN)
def _target(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, target=value)


@_reads(**BOOLEAN)
def _early_exit(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, early_exit=value)


@_reads(type="object")
def _loops(value: Any, field: str) -> Iterator[ParsedControl]:
    """vLLM's: where its longest pattern is 0 it asks for nothing."""
    if not isinstance(value, Mapping):
        _wrong(field, "an object")
    yield ParsedControl(field, stops_loops=value.get("max_pattern_size") not in (None, 0))


@_reads(type="integer", minimum=0, exclusiveMaximum=2**31)
def _length(value: Any, field: str) -> Iterator[ParsedControl]:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        _wrong(field, "a number from 0 on")
    yield ParsedControl(field, length=(field.rpartition(".")[2], value))


@_reads(**BOOLEAN)
def _shown(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, show=value)


@_reads(**BOOLEAN)
def _hidden(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield ParsedControl(field, show=not value)


@_reads(anyOf=[_switch.schema, _effort.schema])
def _think(value: Any, field: str) -> Iterator[ParsedControl]:
    yield from _switch(value, field) if isinstance(value, bool) else _effort(value, field)


@_reads(enum=get_args(Wish))
def _mode(value: Any, field: str) -> Iterator[ParsedControl]:
    if not _is_wish(value):
        _wrong(field, "one of " + ", ".join(get_args(Wish)))
    yield ParsedControl(field, mode=value)


@_reads(type="number", minimum=0, maximum=1)
def _threshold(value: Any, field: str) -> Iterator[ParsedControl]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        _wrong(field, "a probability between 0 and 1")
    yield ParsedControl(field, threshold=float(value))


@_reads(type="number", exclusiveMinimum=0)
def _deadline(value: Any, field: str) -> Iterator[ParsedControl]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        _wrong(field, "a number of seconds")
    yield ParsedControl(field, deadline=float(value))


@_reads(type="integer", minimum=1, maximum=MOST_REPLIES)
def _best_of(value: Any, field: str) -> Iterator[ParsedControl]:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_REPLIES:
        _wrong(field, f"a number of replies from 1 to {MOST_REPLIES}")
    yield ParsedControl(field, best_of=value)


THINKING_TYPES: Mapping[str, Wish] = {"enabled": "think", "disabled": "no_think", "adaptive": "auto", "auto": "auto"}
_ON = frozenset(THINKING_TYPES) - {"disabled"}
DISPLAYS = ("summarized", "updates", "omitted")


@_reads(enum=list(THINKING_TYPES))
def _thinking_type(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, str) or value not in THINKING_TYPES:
        _wrong(field, "one of " + ", ".join(THINKING_TYPES))
    mode = THINKING_TYPES[value]
    yield ParsedControl(field, mode=mode, adaptive=mode == "auto")


@_reads(enum=DISPLAYS)
def _display(value: Any, field: str) -> Iterator[ParsedControl]:
    if value not in DISPLAYS:
        _wrong(field, "one of " + ", ".join(DISPLAYS))
    yield ParsedControl(field, show=value != "omitted")


@_reads()
def _ignored(value: Any, field: str) -> Iterator[ParsedControl]:
    del value, field
    yield from ()


@dataclass(frozen=True, slots=True)
class _Object:
    """A reader of an object, field by field. Unknown fields are refused unless `others` go elsewhere."""

    readers: Mapping[str, Reader]
    others: bool = False

    @property
    def schema(self) -> Mapping[str, Any]:
        fields = {name: {"anyOf": [reader.schema, {"type": "null"}]} for name, reader in self.readers.items()}
        return {"type": "object", "properties": fields, "additionalProperties": self.others}

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        if not isinstance(value, Mapping):
            _wrong(field, "an object")
        for key, item in value.items():
            if item is None or (self.others and key not in self.readers):
                continue
            if key not in self.readers:
                raise PolicyError(f"{field}.{key}: unknown field", f"{field}.{key}")
            yield from self.readers[key](item, f"{field}.{key}")


class _Reasoning(_Object):
    """OpenRouter's object: an effort beside a number of tokens is for the template, the number for the budget."""

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        said = list(_Object.__call__(self, value, field))
        counted = any(item.budget is not None for item in said)
        yield from (replace(item, counted=counted) if item.effort else item for item in said)


class _Thinking(_Object):
    """Anthropic's object: a budget of 0 beside thinking that is on is how clients leave the budget open."""

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        if (
            isinstance(value, Mapping)
            and value.get("budget_tokens") == 0
            and value.get("type") not in (None, "disabled")
        ):
            value = {key: item for key, item in value.items() if key != "budget_tokens"}
        yield from _Object.__call__(self, value, field)


SCOPED = _Object({"tokens": _budget, "scope": _scope})


@_reads(anyOf=[_budget.schema, SCOPED.schema])
def _scoped_budget(value: Any, field: str) -> Iterator[ParsedControl]:
    if not isinstance(value, Mapping):
        yield from _budget(value, field)
        return
    yield from SCOPED(value, field)


BUDGET_NAMES = (
    "thinking_token_budget",
    "thinking_budget",
    "thinking_budget_tokens",
    "reasoning_budget",
    "reasoning_budget_tokens",
    "reasoning_max_tokens",
    "max_thinking_tokens",
)
TEMPLATE_HINTS = ("clear_thinking", "keep")
"""Keys of `thinking` that say how templates treat earlier thinking: arguments of those that know them."""

REASONING = _Reasoning(
    {
        "effort": _effort,
        "enabled": _switch,
        "max_tokens": _budget,
        "exclude": _hidden,
        **dict.fromkeys(("summary", "generate_summary", "context"), _ignored),
    }
)


@_reads(anyOf=[_effort.schema, REASONING.schema])
def _effort_or_object(value: Any, field: str) -> Iterator[ParsedControl]:
    yield from REASONING(value, field) if isinstance(value, Mapping) else _effort(value, field)


CONTROLS: Mapping[str, Reader] = {
    "reasond": _Object(
        {
            "mode": _mode,
            "think_threshold": _threshold,
            "budget": _scoped_budget,
            "cut": _cut,
            "prefill": _prefill,
            "best_of": _best_of,
            "exit": _early_exit,
            "deadline_seconds": _deadline,
            "speculative": _Object({"target": _target, **dict.fromkeys(LENGTHS, _length)}),
        }
    ),
    "reasoning_effort": _effort_or_object,
    "reasoning": REASONING,
    "thinking": _Thinking(
        {
            "type": _thinking_type,
            "budget_tokens": _budget,
            "display": _display,
            **dict.fromkeys(TEMPLATE_HINTS, _ignored),
        }
    ),
    "output_config": _Object({"effort": _overall_effort}),
    "enable_thinking": _switch,
    "think": _think,
    "chat_template_kwargs": _Object(
        {"enable_thinking": _switch, "thinking": _switch, **dict.fromkeys(BUDGET_NAMES, _budget)}, others=True
    ),
    **dict.fromkeys(BUDGET_NAMES, _budget),
    "nvext": _Object({"max_thinking_tokens": _budget}),
    "include_reasoning": _shown,
    "repetition_detection": _loops,
}
"""Every control field that a request may carry, and how to read it."""


def control_schema(field: str) -> dict[str, Any]:
    """The JSON schema of a control field. Null, which says nothing, may stand in all of them."""
    return {"anyOf": [CONTROLS[field].schema, {"type": "null"}]}


def control_names() -> list[str]:
    """Every control with its path, objects taken apart: what the documentation must list."""
    return [name for field, reader in CONTROLS.items() for name in _names(field, reader)]


def _names(path: str, reader: Reader) -> list[str]:
    if not isinstance(reader, _Object):
        return [path]
    return [name for key, inner in reader.readers.items() for name in _names(f"{path}.{key}", inner)]


TEMPLATE_CONTROLS = frozenset({"enable_thinking", "thinking"})
"""Keys of `chat_template_kwargs` that are controls, so not for the template."""
