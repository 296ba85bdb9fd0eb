"""`POST /v1/completions`: raw text or token ids, with no template, no modes and no parsing of thinking."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from server.apis.shared.sampling_fields import IGNORED_FIELDS, Count, Flag, OpenAISampling, Text, TokenId, with_fields

MAX_PROMPTS = 1024
Ids = Annotated[list[TokenId], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
IdLists = Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]


@with_fields(*IGNORED_FIELDS)
class CompletionRequest(OpenAISampling):
    model: Annotated[Text, Field(max_length=256)]
    prompt: Text | Ids | Texts | IdLists
    logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
    echo: Flag = False
    best_of: Count | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of: only the same as n")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo: not with logprobs")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return [*self.prompt]
