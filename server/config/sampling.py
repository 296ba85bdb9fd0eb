"""Sampling: what each number may be, in a request and in the configuration alike."""

from typing import Annotated

from pydantic import Field

from models.config import Section

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(strict=True, ge=-1, lt=2**31)]
MinP = Annotated[float, Field(ge=0, le=1)]
PresencePenalty = Annotated[float, Field(ge=-2, le=2)]
FrequencyPenalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10)]
MaxTokens = Annotated[int, Field(strict=True, ge=1, lt=2**31)]


class SamplingConfig(Section):
    """What a route's requests get where they do not say. None: the engine's own default."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    max_tokens: MaxTokens | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
