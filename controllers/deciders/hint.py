"""The model thinks, and is told to leave its thinking empty where the answer is plain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question

HINT = (
    "Leave your thinking empty where the answer is plain, keep it to a few lines where it is not hard, and take your "
    "time only where it is."
)


class HintConfig(DeciderConfig):
    """`text` is the sentence, which stands at the end of the system turn."""

    decider: Literal["hint"] = "hint"
    text: str = HINT


class Hint:
    """Costs the tokens of one sentence, and needs no calibration."""

    def __init__(self, config: HintConfig) -> None:
        self._text = config.text

    async def decide(self, question: Question) -> ModeVerdict | None:
        request = replace(question.request, messages=hinted(question.request.messages, self._text))
        return ModeVerdict("think", "hint", request=request)


def hinted(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    first = messages[0]
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
