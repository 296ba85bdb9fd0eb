"""The model's own first token decides."""

from controllers.deciders.base import ModeVerdict, Question


class OwnToken:
    """For models that were trained to begin with a token of their mode."""

    async def decide(self, question: Question) -> ModeVerdict | None:
        return None
