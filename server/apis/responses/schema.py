"""`POST /v1/responses`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import Discriminator, Field, Tag, model_validator

from models.tool_calls.tools import Tool
from server.apis.responses.items import InputItem, InputMessage, flat_name, turns
from server.apis.shared.messages import Lenient, MessageReader, TextPart, Turn, Unseal
from server.apis.shared.request import GenerationRequest
from server.apis.shared.sampling_fields import (
    Body,
    Controlled,
    Count,
    Flag,
    JsonObject,
    Limit,
    SamplingFields,
    StreamOptions,
    Text,
    by_type,
    of_type,
    with_fields,
)
from server.apis.shared.tools import (
    MAX_TOOLS,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReadTool,
    TextFormat,
    ToolChoice,
    ToolName,
    ToolSet,
    check_choice,
    custom_tool,
    format_grammar,
    named_tool,
)


class FunctionParam(Lenient):
    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: Flag | None = None  # arguments always keep to the schema
    defer_loading: Flag | None = None

    def as_tool(self, name: str) -> Tool:
        return Tool(name, self.parameters, self.description)


class CustomParam(Lenient):
    type: Literal["custom"]
    name: ToolName
    description: Text | None = None
    format: JsonObject | None = None
    defer_loading: Flag | None = None

    def as_tool(self, name: str) -> Tool:
        return custom_tool(name, self.description, self.format)


class HostedParam(Lenient):
    """A tool that OpenAI's servers run, or that newer clients know."""

    type: Text


def _kind(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, Mapping) else getattr(tool, "type", None)
    known = kind if kind in ("function", "custom", "namespace") else "hosted"
    return f"<{known}>" if isinstance(kind, str) else "<>"


_BY_KIND = Discriminator(_kind, custom_error_type="type", custom_error_message="unknown type")
OwnTool = Annotated[FunctionParam, Tag("<function>")] | Annotated[CustomParam, Tag("<custom>")]


class NamespaceParam(Lenient):
    """Tools that their client keeps together under a name."""

    type: Literal["namespace"]
    name: ToolName
    tools: list[Annotated[OwnTool, _BY_KIND]]


ToolParam = Annotated[
    OwnTool | Annotated[NamespaceParam, Tag("<namespace>")] | Annotated[HostedParam, Tag("<hosted>")], _BY_KIND
]


def _read(tool: Any, field: str, namespace: str | None = None) -> Iterator[ReadTool]:
    if isinstance(tool, NamespaceParam):
        for i, each in enumerate(tool.tools):
            yield from _read(each, f"{field}.tools.{i}", tool.name)
    elif isinstance(tool, HostedParam):
        yield ReadTool(field, tool.type)
    else:
        known = tool.as_tool(flat_name(tool.name, namespace))
        place = (namespace, tool.name) if namespace else None
        yield ReadTool(field, tool.type, known, bool(tool.defer_loading), place)


class NamedTool(Lenient):
    type: Literal["function", "custom"]
    name: ToolName
    namespace: Text | None = None


class AllowedItems(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[JsonObject]

    @property
    def names(self) -> frozenset[str]:
        """Of tools that nobody here runs, there are none."""
        return frozenset(
            flat_name(str(tool.get("name")), tool.get("namespace"))
            for tool in self.tools
            if tool.get("type") in ("function", "custom")
        )


AnswerFormat = Annotated[
    Annotated[TextFormat, of_type("text")]
    | Annotated[JsonObjectFormat, of_type("json_object")]
    | Annotated[JsonSchemaFormat, of_type("json_schema")],
    by_type(),
]


class TextConfig(Body):
    format: AnswerFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


NOT_DONE = {
    "context_management": "nothing of the conversation is compacted: the model reads it as it was sent",
    "max_tool_calls": "no tools are run here, so none are counted",
    "moderation": "nothing is moderated",
}
"""Fields that clients of OpenAI's own servers send, and what is therefore not done."""


@with_fields("client_metadata", "prompt_cache_options", *NOT_DONE)
class ResponsesRequest(SamplingFields, Controlled):
    """A request for a response. Responses are kept in memory, a bounded number of them, unless `store` is false."""

    model: Annotated[Text, Field(max_length=256)]
    input: Text | Annotated[list[InputItem], Field(max_length=10_000)]
    instructions: Text | None = None
    previous_response_id: Annotated[Text, Field(max_length=256)] | None = None
    max_output_tokens: Limit = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    store: Flag | None = None
    background: Flag | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedItems | None = None
    parallel_tool_calls: Flag | None = None
    text: TextConfig | None = None
    top_logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
    include: list[Text] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    metadata: dict[str, Text] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_choice(self.tool_set.names, self.choice)
        if self.background and self.stream:
            raise ValueError("background: not with stream")
        if self.background and self.store is False:
            raise ValueError("background: needs store")
        return self

    @cached_property
    def tool_set(self) -> ToolSet:
        return ToolSet([read for i, tool in enumerate(self.tools or ()) for read in _read(tool, f"tools.{i}")])

    @property
    def choice(self) -> ToolChoice:
        match self.tool_choice:
            case NamedTool(name=name, namespace=namespace):
                return named_tool(flat_name(name, namespace))
            case AllowedItems(mode=mode, names=names):
                return ToolChoice(mode, names)
            case _:
                return ToolChoice(self.tool_choice or "auto")

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in (self.include or ())

    @property
    def items(self) -> Sequence[Any]:
        """The input as items."""
        if isinstance(self.input, str):
            text = TextPart(type="input_text", text=self.input)
            return [InputMessage(id=f"msg_{uuid4().hex}", role="user", content=[text])]
        return self.input

    def generation_request(self, items: Sequence[Any], earlier: Sequence[Turn], unseal: Unseal) -> GenerationRequest:
        """The request in the controllers' words: `items` behind the turns of an earlier response."""
        reader = MessageReader(unseal)
        instructions = [{"role": "system", "content": self.instructions}] if self.instructions else []
        messages = [*instructions, *earlier, *turns(items, reader)]
        logprobs = (self.top_logprobs or 0) if self.wants_logprobs else None
        called = {call["function"]["name"] for turn in messages for call in turn.get("tool_calls", ())}
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=messages,
            sampling=lambda defaults: self.sampling(defaults, max_tokens=self.max_output_tokens, logprobs=logprobs),
            answer=self.tool_set.constraints(
                self.choice,
                called,
                self.parallel_tool_calls is not False,
                text=format_grammar(self.text.format if self.text else None),
                format_field="text.format",
            ),
            template_kwargs=self.template_kwargs,
            cache_salt=self.cache_salt,
            conversation_field="input",
            hosted=self.tool_set.hosted,
            notes=(*reader.notes, *self._not_done()),
        )

    def _not_done(self) -> Iterator[str]:
        yield from (f"{name}: {says}" for name, says in NOT_DONE.items() if getattr(self, name, None))
        if self.truncation == "auto":
            yield "truncation: a conversation that is too long is refused, not truncated"


def kept_items(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Items as they are kept, each with an id."""
    sent = [item.model_dump(mode="json", exclude_none=True) for item in items]
    return [{**item, "id": item.get("id") or f"item_{uuid4().hex}"} for item in sent]
