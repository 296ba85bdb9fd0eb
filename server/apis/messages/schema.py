"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from models.tool_calls.tools import Tool
from server.apis.shared.messages import Lenient, Message, MessageReader, TextPart, ToolUsePart, Unseal, sealed_elsewhere
from server.apis.shared.request import GenerationRequest
from server.apis.shared.sampling_fields import (
    MAX_STOPS,
    Body,
    Controlled,
    Count,
    Flag,
    JsonObject,
    SamplingFields,
    StopString,
    Text,
    by_type,
    of_type,
    with_fields,
)
from server.apis.shared.tools import (
    MAX_TOOLS,
    JsonSchemaFormat,
    ReadTool,
    ToolChoice,
    ToolName,
    ToolSet,
    check_choice,
    format_grammar,
    named_tool,
)
from server.edges.errors import ApiError


class ToolParam(Lenient):
    """A tool of the client's own, or by its `type` one that Anthropic's servers run."""

    type: Text | None = None
    name: ToolName | None = None
    description: Text | None = None
    input_schema: JsonObject | None = None
    strict: Flag | None = None  # arguments always keep to the schema
    defer_loading: Flag | None = None

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.own and (self.name is None or self.input_schema is None):
            raise ValueError(f"{'name' if self.name is None else 'input_schema'}: Field required")
        return self

    @property
    def own(self) -> bool:
        return self.type in (None, "custom")

    def read(self, field: str) -> ReadTool:
        if not self.own or self.name is None:
            return ReadTool(field, self.type or "")
        tool = Tool(self.name, self.input_schema, self.description)
        return ReadTool(field, "function", tool, deferred=bool(self.defer_loading))


class AutoChoice(Body):
    type: Literal["auto"]
    disable_parallel_tool_use: Flag = False


class AnyChoice(Body):
    type: Literal["any"]
    disable_parallel_tool_use: Flag = False


class NoChoice(Body):
    type: Literal["none"]
    disable_parallel_tool_use: Flag = False


class NamedChoice(Body):
    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: Flag = False


Choice = Annotated[
    Annotated[AutoChoice, of_type("auto")]
    | Annotated[AnyChoice, of_type("any")]
    | Annotated[NoChoice, of_type("none")]
    | Annotated[NamedChoice, of_type("tool")],
    by_type(),
]


class OutputConfig(Body):
    """`effort` is a control, read by the policy."""

    effort: Any = None
    format: JsonSchemaFormat | None = None


NOT_DONE = {
    "context_management": "nothing of the conversation is cleared: the model reads it as it was sent",
    "safeguards": "no tool use is checked",
    "mcp_servers": "no MCP server is asked",
    "container": "there are no containers",
    "fallbacks": "there are no fallbacks",
    "compaction": "nothing of the conversation is summed up",
}
"""Fields that clients of Anthropic's own servers send, and what is therefore not done."""

IGNORED = (  # some of them by /v1/messages/count_tokens alone
    "betas",
    "billing_policy",
    "cache_control",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
    "max_tokens",
    "speed",
    "stop_sequences",
    "stream",
    "thread",
    "user_profile_id",
    "workspace_id",
)


@with_fields(*IGNORED, *NOT_DONE)
class CountRequest(SamplingFields, Controlled):
    """A conversation whose tokens are to be counted."""

    model: Annotated[Text, Field(max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    system: Text | list[TextPart] | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
    output_format: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_choice(self.tool_set.names, self.choice)
        return self

    @cached_property
    def tool_set(self) -> ToolSet:
        return ToolSet([tool.read(f"tools.{i}") for i, tool in enumerate(self.tools or ())])

    @property
    def choice(self) -> ToolChoice:
        match self.tool_choice:
            case NamedChoice(name=name):
                return named_tool(name)
            case AnyChoice():
                return ToolChoice("required")
            case NoChoice():
                return ToolChoice("none")
        return ToolChoice()

    def controls(self) -> Mapping[str, Any]:
        """`output_config` holds a format beside its control."""
        controls = dict(super().controls())
        if self.output_config is not None:
            controls["output_config"] = {"effort": self.output_config.effort}
        return controls

    @property
    def limit(self) -> int | None:
        return None

    @property
    def continued(self) -> bool:
        """The reply goes on from a last turn of the assistant, unless that waits for its tools."""
        last = self.messages[-1]
        return last.role == "assistant" and not any(isinstance(part, ToolUsePart) for part in last.parts)

    def generation_request(self, unseal: Unseal = sealed_elsewhere) -> GenerationRequest:
        """The request in the controllers' words."""
        if getattr(self, "thread", None) is not None:  # ignored, the next request would hold its last turn alone
            raise ApiError(
                400,
                "thread: conversations are not kept here; send all messages",
                param="thread",
                code="unknown_parameter",
                details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
            )
        reader = MessageReader(unseal)
        system = [Message(role="system", content=self.system)] if self.system else []
        form = self.output_config.format if self.output_config else None
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=reader.turns([*system, *self.messages]),
            sampling=lambda defaults: self.sampling(defaults, max_tokens=self.limit, logprobs=None),
            answer=self.tool_set.constraints(
                self.choice,
                (name for message in self.messages for name in message.tools_named),
                not (self.tool_choice and self.tool_choice.disable_parallel_tool_use),
                text=format_grammar(form or self.output_format),
                format_field="output_config.format" if form else "output_format",
            ),
            template_kwargs=self.template_kwargs,
            continue_final=self.continued,
            cache_salt=self.cache_salt,
            hosted=self.tool_set.hosted,
            notes=(*reader.notes, *self._not_done()),
        )

    def _not_done(self) -> list[str]:
        return [f"{name}: {says}" for name, says in NOT_DONE.items() if getattr(self, name, None)]


class MessagesRequest(CountRequest):
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
