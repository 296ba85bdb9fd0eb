"""verl's discriminative reward model."""

from collections.abc import Container
from typing import Any

from server.apis.reward_protocols.base import ProtocolCall, Texts, WithModel
from server.apis.shared.sampling_fields import Text


class Classify(WithModel):
    """verl. `input` is a conversation through a chat template. `use_activation` changes nothing: scores are 0-1."""

    input: Text | Texts

    def judge_name(self, judges: Container[str]) -> str | None:
        """A model that is no judge route is verl's own name for its checkpoint: the default judge."""
        return self.model if self.model in judges else None


async def classify(call: ProtocolCall, body: Classify) -> dict[str, Any]:
    """verl's discriminative reward model, which reads `data[-1].probs[-1]`."""
    pairs = [call.pair("input", text) for text in ([body.input] if isinstance(body.input, str) else body.input)]
    scores = await call.score_pairs(pairs, [body.criterion] * len(pairs))
    data = [{"index": i, "label": None, "probs": [value], "num_classes": 1} for i, value in enumerate(scores)]
    return call.listed("classify", data)
