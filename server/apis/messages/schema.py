"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from models.engines.base import Grammar
from models.tool_calls.tools import Choice, Tool
from server.apis.chat.schema import call_as_template_input
from server.apis.shared.request import GenerationRequest, OutputConstraints
from server.apis.shared.sampling_fields import (
    MAX_STOPS,
    Body,
    Controlled,
    Count,
    Flag,
    SamplingFields,
    StopString,
    Text,
    by_type,
    of_type,
    with_controls,
)
from server.apis.shared.tools import MAX_TOOLS, JsonObject, ToolName, check_choice

Turn = dict[str, Any]


class TextBlock(Body):
    type: Literal["text"]
    text: Text
    cache_control: Any = None
    citations: Any = None


class ThinkingBlock(Body):
    """The signature is what this server gave; it is not verified, as another server may have given it."""

    type: Literal["thinking"]
    thinking: Text
    signature: Text = ""


class RedactedThinkingBlock(Body):
    type: Literal["redacted_thinking"]
    data: Text


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: Text
    name: Text
    input: JsonObject
    cache_control: Any = None
    caller: Any = None
    toolset_name: Any = None


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Text | list[Annotated[Annotated[TextBlock, of_type("text")], by_type()]] | None = None
    is_error: Flag | None = None
    cache_control: Any = None
    toolset_name: Any = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(block.text for block in self.content or ())


Block = Annotated[
    Annotated[TextBlock, of_type("text")]
    | Annotated[ThinkingBlock, of_type("thinking")]
    | Annotated[RedactedThinkingBlock, of_type("redacted_thinking")]
    | Annotated[ToolUseBlock, of_type("tool_use")]
    | Annotated[ToolResultBlock, of_type("tool_result")],
    by_type(),
]


class MessageParam(Body):
    role: Literal["user", "assistant", "system"]
    content: Text | list[Block]

    def turns(self) -> Iterator[Turn]:
        """The message as chat templates read it: results of tools are turns of their own, before the user's words."""
        blocks = [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content
        for block in blocks:
            if isinstance(block, ToolResultBlock):
                yield {"role": "tool", "content": block.text, "tool_call_id": block.tool_use_id}
        texts = [block.text for block in blocks if isinstance(block, TextBlock)]
        thought = "".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock))
        calls = [
            call_as_template_input(block.id, block.name, json.dumps(block.input))
            for block in blocks
            if isinstance(block, ToolUseBlock)
        ]
        said = {"reasoning_content": thought, "tool_calls": calls}
        if texts or any(said.values()):
            turn: Turn = {"role": self.role, "content": "\n".join(texts)}
            yield turn | {key: value for key, value in said.items() if value}


class ToolParam(Body):
    type: Literal["custom"] | None = None
    name: ToolName
    description: Text | None = None
    input_schema: JsonObject
    strict: Flag | None = None  # arguments always keep to the schema
    cache_control: Any = None
    allowed_callers: Any = None
    defer_loading: Any = None
    eager_input_streaming: Any = None
    input_examples: Any = None


class AutoChoice(Body):
    type: Literal["auto"]
    disable_parallel_tool_use: Flag = False


class AnyChoice(Body):
    type: Literal["any"]
    disable_parallel_tool_use: Flag = False


class NoChoice(Body):
    type: Literal["none"]


class NamedChoice(Body):
    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: Flag = False


ToolChoice = Annotated[
    Annotated[AutoChoice, of_type("auto")]
    | Annotated[AnyChoice, of_type("any")]
    | Annotated[NoChoice, of_type("none")]
    | Annotated[NamedChoice, of_type("tool")],
    by_type(),
]


class JsonOutput(Body):
    type: Literal["json_schema"]
    schema_: Annotated[JsonObject, Field(alias="schema")]


class OutputConfig(Body):
    """`effort` is a control, read by the policy."""

    effort: Any = None
    format: JsonOutput | None = None


class CountBody(SamplingFields, Controlled):
    """A conversation whose tokens are to be counted."""

    model: Annotated[Text, Field(max_length=256)]
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=10_000)]
    system: Text | list[TextBlock] | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_choice([tool.name for tool in self.tools or ()], self.choice, self.named)
        return self

    @property
    def named(self) -> str | None:
        return self.tool_choice.name if isinstance(self.tool_choice, NamedChoice) else None

    @property
    def choice(self) -> Choice:
        match self.tool_choice:
            case AnyChoice() | NamedChoice():
                return "required"
            case NoChoice():
                return "none"
        return "auto"

    def controls(self) -> Mapping[str, Any]:
        """`output_config` holds a format beside its control."""
        controls = dict(super().controls())
        if self.output_config is not None:
            controls["output_config"] = {"effort": self.output_config.effort}
        return controls

    @property
    def limit(self) -> int | None:
        return None

    def asked(self) -> GenerationRequest:
        """The request in the controllers' words."""
        system = self.system if isinstance(self.system, str) else "\n".join(block.text for block in self.system or ())
        form = self.output_config.format if self.output_config else None
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=[
                *([{"role": "system", "content": system}] if system else []),
                *(turn for message in self.messages for turn in message.turns()),
            ],
            sampling=lambda defaults: self.sampling(defaults, max_tokens=self.limit, logprobs=None),
            answer=OutputConstraints(
                [Tool(tool.name, tool.input_schema, tool.description) for tool in self.tools or ()],
                self.choice,
                self.named,
                not getattr(self.tool_choice, "disable_parallel_tool_use", False),
                Grammar("json", form.schema_) if form else None,
                "output_config.format",
            ),
            template_kwargs=self.template_kwargs,
            cache_salt=self.cache_salt,
        )


class MessagesBody(CountBody):
    """A request for a message."""

    max_tokens: Annotated[Count, Field(ge=1, lt=2**31)]
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    stream: Flag | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(self.stop_sequences or ())

    @property
    def limit(self) -> int | None:
        return self.max_tokens


IGNORED = (
    "cache_control",
    "context_management",
    "diagnostics",
    "inference_geo",
    "speed",
    "user_profile_id",
    "workspace_id",
)

CountRequest = with_controls("CountRequest", CountBody, *IGNORED)
MessagesRequest = with_controls("MessagesRequest", MessagesBody, *IGNORED)
