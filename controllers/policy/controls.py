"""Every control field that a request may carry: how it is read, and what may stand in it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import ge, gt, le, lt
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

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
    length: tuple[str, int] | None = None
    deadline: float | None = None


class Reader(Protocol):
    """Reads the value of a field. `schema` is the JSON schema of the values that it takes; what it refuses beyond that
    depends on the rest of the request."""

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]: ...


Says = Callable[[Any], Mapping[str, Any]]
"""What a value says: fields of `ParsedControl`; none where it says nothing."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A reader of one value. Where it does not take a value, what is `expected` is named."""

    schema: Mapping[str, Any]
    expected: str
    takes: Callable[[Any], bool]
    says: Says

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        if not self.takes(value):
            raise PolicyError(f"{field}: expected {self.expected}", field)
        if said := self.says(value):
            yield ParsedControl(field, **said)


def _flag(says: Says) -> _Value:
    return _Value({"type": "boolean"}, "true or false", lambda value: isinstance(value, bool), says)


def _choice(choices: Iterable[str], says: Says, expected: str = "") -> _Value:
    known = tuple(choices)
    return _Value({"enum": known}, expected or "one of " + ", ".join(known), lambda value: value in known, says)


_COMPARES = {"minimum": ge, "exclusiveMinimum": gt, "maximum": le, "exclusiveMaximum": lt}


def _number(kind: Literal["integer", "number"], expected: str, says: Says, **bounds: float) -> _Value:
    """`bounds` are JSON schema's. No number is larger than a float can be."""
    types = (int,) if kind == "integer" else (int, float)

    def takes(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, types) or abs(value) > sys.float_info.max:
            return False
        return all(_COMPARES[name](value, bound) for name, bound in bounds.items())

    return _Value({"type": kind, **bounds}, expected, takes, says)


@dataclass(frozen=True, slots=True)
class _Either:
    """A reader of two kinds of values: the `second` takes those that are its own."""

    first: Reader
    second: Reader
    is_second: Callable[[Any], bool]

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"anyOf": [self.first.schema, self.second.schema]}

    def __call__(self, value: Any, field: str) -> Iterator[ParsedControl]:
        return (self.second if self.is_second(value) else self.first)(value, field)


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
            raise PolicyError(f"{field}: expected an object", field)
        for key, item in value.items():
            if key not in self.readers:
                if self.others:
                    continue
                raise PolicyError(f"{field}.{key}: unknown field", f"{field}.{key}")
            if item is not None:
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
        thinks = _is_object(value) and value.get("type") not in (None, "disabled")
        if thinks and value.get("budget_tokens") == 0:
            value = {key: item for key, item in value.items() if key != "budget_tokens"}
        yield from _Object.__call__(self, value, field)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


UNSAID = ("auto", "default", "")
"""Efforts by which clients say that they name none."""
TYPES: Mapping[str, Wish] = {"enabled": "think", "disabled": "no_think", "adaptive": "auto", "auto": "auto"}
"""Anthropic's types of thinking, and what other clients write for them."""


def _of_effort(effort: str) -> Mapping[str, Any]:
    return {} if effort in UNSAID else {"mode": "no_think"} if effort == "none" else {"mode": "think", "effort": effort}


def _of_overall_effort(effort: str) -> Mapping[str, Any]:
    """Anthropic's effort is for thinking and answer together: it stands beside any setting of the thinking."""
    said = _of_effort(effort)
    return {**said, "yields": "effort" in said} if said else said


_efforts = ("none", *EFFORTS)
_effort = _choice((*_efforts, *UNSAID), _of_effort, "one of " + ", ".join(_efforts))
_switch = _flag(lambda on: {"mode": "think" if on else "no_think"})
_budget = _number(
    "integer",
    "a number of tokens, or -1 for no limit",
    lambda tokens: {"budget": tokens},
    minimum=UNLIMITED,
    exclusiveMaximum=2**31,
)
SCOPED = _Object({"tokens": _budget, "scope": _choice(get_args(Scope), lambda scope: {"scope": scope})})
_ignored = _Value({}, "", lambda value: True, lambda value: {})


def _length(name: str) -> _Value:
    return _number(
        "integer", "a number from 0 on", lambda tokens: {"length": (name, tokens)}, minimum=0, exclusiveMaximum=2**31
    )


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
        "exclude": _flag(lambda hidden: {"show": not hidden}),
        **dict.fromkeys(("summary", "generate_summary", "context"), _ignored),
    }
)

CONTROLS: Mapping[str, Reader] = {
    "reasond": _Object(
        {
            "mode": _choice(get_args(Wish), lambda mode: {"mode": mode}),
            "think_threshold": _number(
                "number",
                "a probability between 0 and 1",
                lambda share: {"threshold": float(share)},
                minimum=0,
                maximum=1,
            ),
            "budget": _Either(_budget, SCOPED, _is_object),
            "cut": _choice(("graceful", "hard"), lambda cut: {"graceful": cut == "graceful"}, "graceful or hard"),
            "prefill": _flag(lambda on: {"prefill": on}),
            "best_of": _number(
                "integer",
                f"a number of replies from 1 to {MOST_REPLIES}",
                lambda replies: {"best_of": replies},
                minimum=1,
                maximum=MOST_REPLIES,
            ),
            "exit": _flag(lambda on: {"early_exit": on}),
            "deadline_seconds": _number(
                "number", "a number of seconds", lambda seconds: {"deadline": float(seconds)}, exclusiveMinimum=0
            ),
            "speculative": _Object(
                {"target": _flag(lambda on: {"target": on}), **{name: _length(name) for name in LENGTHS}}
            ),
        }
    ),
    "reasoning_effort": _Either(_effort, REASONING, _is_object),
    "reasoning": REASONING,
    "thinking": _Thinking(
        {
            "type": _choice(TYPES, lambda name: {"mode": TYPES[name], "adaptive": TYPES[name] == "auto"}),
            "budget_tokens": _budget,
            "display": _choice(("summarized", "updates", "omitted"), lambda form: {"show": form != "omitted"}),
            **dict.fromkeys(TEMPLATE_HINTS, _ignored),
        }
    ),
    "output_config": _Object({"effort": replace(_effort, says=_of_overall_effort)}),
    "enable_thinking": _switch,
    "think": _Either(_switch, _effort, lambda value: not isinstance(value, bool)),
    "chat_template_kwargs": _Object(
        {"enable_thinking": _switch, "thinking": _switch, **dict.fromkeys(BUDGET_NAMES, _budget)}, others=True
    ),
    **dict.fromkeys(BUDGET_NAMES, _budget),
    "nvext": _Object({"max_thinking_tokens": _budget}),
    "include_reasoning": _flag(lambda shown: {"show": shown}),
}
"""Every control field that a request may carry, and how to read it."""


def control_schema(field: str) -> dict[str, Any]:
    """The JSON schema of a control field. Null, which says nothing, may stand in all of them."""
    return {"anyOf": [CONTROLS[field].schema, {"type": "null"}]}


TEMPLATE_CONTROLS = frozenset({"enable_thinking", "thinking"})
"""Keys of `chat_template_kwargs` that are controls, so not for the template."""
