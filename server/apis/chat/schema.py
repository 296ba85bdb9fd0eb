"""`POST /v1/chat/completions`."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from models.tool_calls.tools import json_object
from server.apis.shared.request import GenerationRequest
from server.apis.shared.sampling_fields import Body, Controlled, Count, Flag, OpenAISampling, Text, with_controls
from server.apis.shared.tools import AnswerFields


class TextPart(Body):
    type: Literal["text", "input_text", "output_text"]
    text: Text


class FunctionCall(Body):
    name: Text
    arguments: Text


class ToolCall(Body):
    id: Text
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Count | None = None

    def as_template_input(self) -> dict[str, Any]:
        return call_as_template_input(self.id, self.function.name, self.function.arguments)


def call_as_template_input(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of an earlier turn as chat templates read it: arguments as an object where they are one."""
    known = json_object(arguments or "{}")
    function = {"name": name, "arguments": arguments if known is None else known}
    return {"id": call_id, "type": "function", "function": function}


SPOKEN: dict[str, Any] = {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}}
CALLING: dict[str, Any] = {"required": ["tool_calls"], "properties": {"role": {"const": "assistant"}}}


class Message(Body):
    """One turn of the conversation. The fields behind `tool_call_id` come back in histories and are not read."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [SPOKEN, CALLING]})

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    reasoning_details: Any = None
    thinking: Any = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.text_of_thinking)):
            raise ValueError("content: a message needs content")
        return self

    @property
    def text_of_thinking(self) -> str | None:
        return self.reasoning_content or self.reasoning

    def as_template_input(self) -> dict[str, Any]:
        """The message as chat templates read it: developer is system, parts are joined by newlines."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content or ())
        message: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.text_of_thinking:
            message["reasoning_content"] = self.text_of_thinking
        if self.tool_calls:
            message["tool_calls"] = [call.as_template_input() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class ChatBody(OpenAISampling, AnswerFields, Controlled):
    """A chat request."""

    model: Annotated[Text, Field(max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[Count, Field(ge=1, lt=2**31)] | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
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
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message: the last message must be the assistant's")
        return self

    def asked(self) -> GenerationRequest:
        """The request in the controllers' words."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        max_tokens = self.max_completion_tokens or self.max_tokens
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=[message.as_template_input() for message in self.messages],
            sampling=lambda defaults: self.sampling(defaults, max_tokens=max_tokens, logprobs=logprobs),
            answer=self.answer_wish(),
            n=self.n or 1,
            template_kwargs=self.template_kwargs,
            continue_final=self.continue_final_message,
            cache_salt=self.cache_salt,
        )


ChatRequest = with_controls("ChatRequest", ChatBody)
