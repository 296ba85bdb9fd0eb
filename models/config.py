"""What every table of the configuration has in common."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

Tokens = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A table: keys that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def resolve(value: str, info: ValidationInfo, must_exist: bool = False) -> str:
    """A path beside the config file, else one in the working directory, else the value itself (a hub id)."""
    folder: Path = (info.context or {}).get("folder", Path())
    for place in (folder / value, Path(value)):
        if place.exists():
            return str(place.resolve())
    if must_exist or value.startswith(("/", "./", "../", "~")):
        raise ValueError(f"{value!r} does not exist")
    return value
