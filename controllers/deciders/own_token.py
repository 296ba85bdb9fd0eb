"""The model's own first token decides: for models that were trained to begin with a token of their mode."""

from typing import Literal

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question


class OwnTokenConfig(DeciderConfig):
    decider: Literal["model"] = "model"


class OwnToken:
    """Asks nobody."""

    async def decide(self, question: Question) -> ModeVerdict | None:
        return None
