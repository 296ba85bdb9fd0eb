"""Tools as clients offer them, and the JSON that they and models write."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import orjson

MOST_LEVELS = 100  # of the arguments of a call: they are put into deeper objects, and templates walk through them
ANY_OBJECT: Mapping[str, Any] = MappingProxyType({"type": "object"})

Choice = Literal["auto", "required", "none"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema (None: any object)."""

    name: str
    parameters: Mapping[str, Any] | None = None
    description: str | None = None

    def as_template_input(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters or ANY_OBJECT)}}


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a client or a model wrote, or None: it is no JSON, no object, or nests too deep. It can always be
    written again: integers beyond 64 bits are floats, as most readers of JSON have them."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and _nests(value, MOST_LEVELS) else None


def _nests(value: Any, levels: int) -> bool:
    """Whether a JSON value has at most so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_nests(each, levels - 1) for each in inner)
