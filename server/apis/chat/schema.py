"""`POST /v1/chat/completions`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from server.apis.shared.messages import Message, MessageReader
from server.apis.shared.request import GenerationRequest
from server.apis.shared.sampling_fields import Controlled, Count, Flag, Limit, OpenAISampling, Text
from server.apis.shared.tools import AnswerFields


class ChatRequest(OpenAISampling, AnswerFields, Controlled):
    """A chat request."""

    model: Annotated[Text, Field(max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Limit = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
    modalities: list[Literal["text"]] | None = None
    continue_final_message: Flag = False
    add_generation_prompt: Flag = True

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens contradict each other")
        if self.add_generation_prompt == self.continue_final_message:
            raise ValueError("continue_final_message: true needs add_generation_prompt: false, and the reverse")
        last = self.messages[-1]
        if self.continue_final_message and (last.role != "assistant" or last.tool_calls):
            raise ValueError("continue_final_message: the last message must be the assistant's, without calls")
        return self

    def generation_request(self) -> GenerationRequest:
        """The request in the controllers' words."""
        reader = MessageReader()
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        max_tokens = self.max_completion_tokens or self.max_tokens
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=reader.turns(self.messages),
            sampling=lambda defaults: self.sampling(defaults, max_tokens=max_tokens, logprobs=logprobs),
            answer=self.constraints(),
            n=self.n or 1,
            template_kwargs=self.template_kwargs,
            continue_final=self.continue_final_message,
            cache_salt=self.cache_salt,
            notes=tuple(reader.notes),
        )
