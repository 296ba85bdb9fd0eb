"""What the client asked for, under whichever name, folded into one policy.

Many fields say the same thing; `CONTROLS` lists them all, and `docs/controls.md` publishes the table. Two fields of one
request that disagree are refused with both names; a field that the route cannot honour is refused, never ignored.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeGuard, get_args

from controllers.reply import ChosenBy
from models.families import Family

Wish = Literal["think", "no_think", "auto"]
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class PolicyError(Exception):
    """The request's controls cannot be honoured. `field` is the one to change."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Policy:
    """How much thinking one request gets: the one form in which controllers read it."""

    mode: Wish
    chosen_by: ChosenBy
    think_threshold: float | None = None
    show_reasoning: bool = True


@dataclass(frozen=True, slots=True)
class Defaults:
    """A route's own policy, for what a request leaves open."""

    mode: Wish
    think_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What one field of a request said. None: nothing about it."""

    field: str
    mode: Wish | None = None
    threshold: float | None = None
    show: bool | None = None
    budget: bool = False


def fold(asked: Mapping[str, Any], family: Family, defaults: Defaults) -> Policy:
    """One policy from a request's control fields, over the route's defaults. Raises `PolicyError`."""
    said = [
        item for field, read in CONTROLS.items() if asked.get(field) is not None for item in read(asked[field], field)
    ]
    for item in said:
        if item.budget:
            raise PolicyError(f"{item.field}: thinking budgets are not served by this route yet", item.field)
    mode = _agreed(said, "mode")
    threshold = _agreed(said, "threshold")
    show = _agreed(said, "show")
    wish: Wish = mode.mode if mode and mode.mode else defaults.mode
    if mode:
        _check_mode(wish, mode.field, family)
    if threshold and wish != "auto":
        raise PolicyError(f"{threshold.field} needs mode auto; this request's mode is {wish}", threshold.field)
    return Policy(
        mode=wish,
        chosen_by="client" if mode else "route",
        think_threshold=None if wish != "auto" else threshold.threshold if threshold else defaults.think_threshold,
        show_reasoning=show is None or show.show is not False,
    )


def modes(family: Family) -> tuple[Wish, ...]:
    """The modes that a family can honour."""
    return (*family.prefixes, *(("auto",) if family.chooses else ()))


def _check_mode(wish: Wish, field: str, family: Family) -> None:
    if wish not in modes(family):
        able = ", ".join(modes(family))
        raise PolicyError(f"{field}: this route's model has no mode {wish}; it has: {able}", field)


def _agreed(said: list[Said], what: Literal["mode", "threshold", "show"]) -> Said | None:
    first: Said | None = None
    for item in said:
        value = getattr(item, what)
        if value is None:
            continue
        if first is None:
            first = item
        elif getattr(first, what) != value:
            raise PolicyError(f"{first.field} and {item.field} contradict each other", item.field)
    return first


Reader = Callable[[Any, str], Iterator[Said]]


def _wrong(field: str, expected: str) -> NoReturn:
    raise PolicyError(f"{field}: expected {expected}", field)


def _is_wish(value: object) -> TypeGuard[Wish]:
    return value in get_args(Wish)


def _effort(value: Any, field: str) -> Iterator[Said]:
    if not isinstance(value, str) or value not in EFFORTS:
        _wrong(field, "one of " + ", ".join(EFFORTS))
    yield Said(field, mode="no_think" if value == "none" else "think")


def _switch(value: Any, field: str) -> Iterator[Said]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield Said(field, mode="think" if value else "no_think")


def _budget(value: Any, field: str) -> Iterator[Said]:
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        _wrong(field, "a number of tokens, or -1 for no limit")
    yield Said(field, budget=True)


def _shown(value: Any, field: str) -> Iterator[Said]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield Said(field, show=value)


def _hidden(value: Any, field: str) -> Iterator[Said]:
    if not isinstance(value, bool):
        _wrong(field, "true or false")
    yield Said(field, show=not value)


def _think(value: Any, field: str) -> Iterator[Said]:
    yield from _switch(value, field) if isinstance(value, bool) else _effort(value, field)


def _mode(value: Any, field: str) -> Iterator[Said]:
    if not _is_wish(value):
        _wrong(field, "one of " + ", ".join(get_args(Wish)))
    yield Said(field, mode=value)


def _threshold(value: Any, field: str) -> Iterator[Said]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        _wrong(field, "a probability between 0 and 1")
    yield Said(field, threshold=float(value))


def _thinking_type(value: Any, field: str) -> Iterator[Said]:
    wishes: dict[Any, Wish] = {"enabled": "think", "disabled": "no_think", "adaptive": "auto"}
    if not isinstance(value, str) or value not in wishes:
        _wrong(field, "enabled, disabled or adaptive")
    yield Said(field, mode=wishes[value])


def _ignored(value: Any, field: str) -> Iterator[Said]:
    del value, field
    yield from ()


def _fields(readers: Mapping[str, Reader], *, others: bool = False) -> Reader:
    """A reader of an object, field by field. Unknown fields are refused unless `others` go elsewhere."""

    def read(value: Any, field: str) -> Iterator[Said]:
        if not isinstance(value, Mapping):
            _wrong(field, "an object")
        for key, item in value.items():
            if key not in readers:
                if others:
                    continue
                raise PolicyError(f"{field}.{key}: unknown field", f"{field}.{key}")
            if item is not None:
                yield from readers[key](item, f"{field}.{key}")

    return read


BUDGET_NAMES = (
    "thinking_token_budget",
    "thinking_budget",
    "thinking_budget_tokens",
    "reasoning_budget_tokens",
    "max_thinking_tokens",
)

CONTROLS: Mapping[str, Reader] = {
    "reasond": _fields({"mode": _mode, "think_threshold": _threshold, "budget": _budget}),
    "reasoning_effort": _effort,
    "reasoning": _fields(
        {"effort": _effort, "enabled": _switch, "max_tokens": _budget, "exclude": _hidden, "summary": _ignored}
    ),
    "thinking": _fields({"type": _thinking_type, "budget_tokens": _budget, "display": _ignored}),
    "output_config": _fields({"effort": _effort}),
    "enable_thinking": _switch,
    "think": _think,
    "chat_template_kwargs": _fields(
        {"enable_thinking": _switch, "thinking": _switch, **dict.fromkeys(BUDGET_NAMES, _budget)}, others=True
    ),
    **dict.fromkeys(BUDGET_NAMES, _budget),
    "nvext": _fields({"max_thinking_tokens": _budget}),
    "include_reasoning": _shown,
}
"""Every control field that a request may carry, and how to read it."""

TEMPLATE_CONTROLS = frozenset({"enable_thinking", "thinking"})
"""Keys of `chat_template_kwargs` that are controls, so not for the template."""
