"""What every table of the configuration has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Tokens = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A table: keys that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
