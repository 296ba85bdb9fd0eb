"""OpenRLHF's remote reward model."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from server.apis.reward_protocols.base import MAX_TEXTS, ProtocolCall, Texts, TrainerBody, criterion_in


class GetReward(TrainerBody):
    """OpenRLHF. `query[i]` is prompt and reply in one, special tokens and all."""

    query: Texts
    prompts: Texts | None = None
    labels: Annotated[list[Any], Field(max_length=MAX_TEXTS)] | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for name in ("prompts", "labels"):
            given = getattr(self, name)
            if given and len(given) != len(self.query):
                raise ValueError(f"{name}: {len(given)} for {len(self.query)} queries")
        return self


async def get_reward(call: ProtocolCall, body: GetReward) -> dict[str, Any]:
    """OpenRLHF, `--reward.remote_url`. With several URLs all but the first get empty lists: nothing to do, 200."""
    sent = zip(body.query, body.prompts or [""] * len(body.query), strict=True)
    pairs = [call.pair(f"query.{i}", query, prompt) for i, (query, prompt) in enumerate(sent)]
    criteria = [criterion_in({"label": label}) for label in body.labels or [None] * len(pairs)]
    scores = await call.score_pairs(pairs, criteria)
    return {"rewards": scores, "scores": scores, "extra_logs": {}}
