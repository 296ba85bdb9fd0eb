"""The base of every section of a recipe, and how a recipe file is read."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.errors import UserError


class Recipe(BaseModel):
    """Unknown keys are errors, and nothing changes after loading. What can be run by itself has a `method`.

    A setting that nobody would read is an error like an unknown one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, table: Any) -> Self:
        """UserError names every key that is not as it should be."""
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            found = [
                (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()
            ]
            raise UserError("; ".join(f"{key}: {text}" if key else text for key, text in found)) from error

    def refuse_unread(self, keys: Sequence[str], reason: str) -> None:
        """ValueError for the first of `keys` that the recipe sets and nobody would read."""
        for key in keys:
            section: Any = self
            *parents, last = key.split(".")
            for parent in parents:
                section = getattr(section, parent, None)
            if not isinstance(section, BaseModel):
                continue
            default = type(section).model_fields[last].get_default(call_default_factory=True)
            if last in section.model_fields_set and getattr(section, last) != default:
                raise ValueError(f"{key} is not read: {reason}")


def load(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file's table, with overrides."""
    try:
        return overridden(tomllib.loads(path.read_text(encoding="utf-8")), overrides)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"no recipe: {error}") from error


def overridden(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The table with `a.b=value` overrides; a value is read as TOML, or as a string where it is none."""
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise UserError(f"an override reads key=value, not {override!r}")
        *parents, last = key.split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UserError(f"{override!r}: {parent} is no table")
        place[last] = _value(text)
    return table


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
