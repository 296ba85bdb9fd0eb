"""`POST /v1/responses`."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import Field, model_validator

from models.engines.base import Grammar
from models.tool_calls.tools import Choice, Tool
from server.apis.chat.schema import call_as_template_input
from server.apis.shared.request import GenerationRequest, OutputConstraints
from server.apis.shared.sampling_fields import (
    Body,
    Controlled,
    Count,
    Flag,
    SamplingFields,
    Text,
    Unread,
    by_type,
    of_type,
    with_controls,
)
from server.apis.shared.tools import MAX_TOOLS, JsonObject, JsonObjectFormat, TextFormat, ToolName, check_choice

Turn = dict[str, Any]


class InputText(Body):
    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Unread = None
    logprobs: Unread = None
    prompt_cache_breakpoint: Unread = None


class Refusal(Body):
    type: Literal["refusal"]
    refusal: Text


class InputMessage(Body):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | list[InputText | Refusal]
    id: Text | None = None
    status: Unread = None
    phase: Unread = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text if isinstance(part, InputText) else part.refusal for part in self.content)


class FunctionCallItem(Body):
    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text
    id: Text | None = None
    status: Unread = None
    namespace: Unread = None
    caller: Unread = None


class FunctionCallOutput(Body):
    type: Literal["function_call_output"]
    call_id: Text
    output: Text | list[InputText]
    id: Text | None = None
    status: Unread = None
    caller: Unread = None

    @property
    def text(self) -> str:
        return self.output if isinstance(self.output, str) else "\n".join(part.text for part in self.output)


class SummaryText(Body):
    type: Literal["summary_text"]
    text: Text


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(Body):
    type: Literal["reasoning"]
    summary: list[SummaryText] = Field(default_factory=list)
    content: list[ReasoningText] | None = None
    id: Text | None = None
    encrypted_content: Unread = None
    status: Unread = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or self.summary)


InputItem = Annotated[
    Annotated[InputMessage, of_type("message")]
    | Annotated[FunctionCallItem, of_type("function_call")]
    | Annotated[FunctionCallOutput, of_type("function_call_output")]
    | Annotated[ReasoningItem, of_type("reasoning")],
    by_type("message"),
]


class ResponsesTool(Body):
    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: Flag | None = None
    output_schema: Unread = None
    allowed_callers: Unread = None
    defer_loading: Unread = None


class NamedTool(Body):
    type: Literal["function"]
    name: ToolName


class SchemaFormat(Body):
    type: Literal["json_schema"]
    name: Text
    schema_: Annotated[JsonObject, Field(alias="schema")]
    description: Text | None = None
    strict: Flag | None = None


AnswerFormat = Annotated[
    Annotated[TextFormat, of_type("text")]
    | Annotated[JsonObjectFormat, of_type("json_object")]
    | Annotated[SchemaFormat, of_type("json_schema")],
    by_type(),
]


class TextConfig(Body):
    format: AnswerFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesStreamOptions(Body):
    include_obfuscation: Flag | None = None


class ResponsesBody(SamplingFields, Controlled):
    """A request for a response. Responses are kept in memory, a bounded number of them, unless `store` is false."""

    model: Annotated[Text, Field(max_length=256)]
    input: Text | Annotated[list[InputItem], Field(max_length=10_000)]
    instructions: Text | None = None
    previous_response_id: Annotated[Text, Field(max_length=256)] | None = None
    max_output_tokens: Annotated[Count, Field(ge=1, lt=2**31)] | None = None
    stream: Flag | None = None
    stream_options: ResponsesStreamOptions | None = None
    store: Flag | None = None
    background: Flag | None = None
    tools: Annotated[list[ResponsesTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Flag | None = None
    text: TextConfig | None = None
    top_logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    truncation: Literal["disabled"] | None = None
    metadata: dict[str, Text] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_choice([tool.name for tool in self.tools or ()], self.choice, self.named)
        if self.background and self.stream:
            raise ValueError("background: not with stream")
        if self.background and self.store is False:
            raise ValueError("background: needs store")
        return self

    @property
    def named(self) -> str | None:
        return self.tool_choice.name if isinstance(self.tool_choice, NamedTool) else None

    @property
    def choice(self) -> Choice:
        return "required" if isinstance(self.tool_choice, NamedTool) else self.tool_choice or "auto"

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in (self.include or ())

    def turns(self) -> list[Turn]:
        """The input as chat templates read it."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return turns(self.input)

    def input_items(self) -> list[dict[str, Any]]:
        """The input as items, each with an id."""
        if isinstance(self.input, str):
            text = {"type": "input_text", "text": self.input}
            return [{"id": f"msg_{uuid4().hex}", "type": "message", "role": "user", "content": [text]}]
        items = [item.model_dump(mode="json", exclude_none=True) for item in self.input]
        return [{**item, "id": item.get("id") or f"item_{uuid4().hex}"} for item in items]

    def asked(self, earlier: Sequence[Turn] = ()) -> GenerationRequest:
        """The request in the controllers' words, behind the turns of an earlier response."""
        instructions = [{"role": "system", "content": self.instructions}] if self.instructions else []
        logprobs = (self.top_logprobs or 0) if self.wants_logprobs else None
        return GenerationRequest(
            model=self.model,
            controls=self.controls(),
            messages=[*instructions, *earlier, *self.turns()],
            sampling=lambda defaults: self.sampling(defaults, max_tokens=self.max_output_tokens, logprobs=logprobs),
            answer=OutputConstraints(
                [Tool(tool.name, tool.parameters, tool.description) for tool in self.tools or ()],
                self.choice,
                self.named,
                self.parallel_tool_calls is not False,
                self._text_grammar(),
                "text.format",
            ),
            template_kwargs=self.template_kwargs,
            cache_salt=self.cache_salt,
            conversation_field="input",
        )

    def _text_grammar(self) -> Grammar | None:
        match self.text.format if self.text else None:
            case SchemaFormat(schema_=schema):
                return Grammar("json", schema)
            case JsonObjectFormat():
                return Grammar("json_object", True)
        return None


def turns(items: Sequence[Any]) -> list[Turn]:
    """Items as turns: what the assistant thought, said and called in a row is one."""
    return list(_turns(items))


def _turns(items: Sequence[Any]) -> Iterator[Turn]:
    open_turn: Turn | None = None
    for item in items:
        if isinstance(item, FunctionCallOutput) or (isinstance(item, InputMessage) and item.role != "assistant"):
            if open_turn is not None:
                yield open_turn
                open_turn = None
            if isinstance(item, FunctionCallOutput):
                yield {"role": "tool", "content": item.text, "tool_call_id": item.call_id}
            else:
                yield {"role": "system" if item.role == "developer" else item.role, "content": item.text}
            continue
        if open_turn is not None and isinstance(item, ReasoningItem) and _spoke(open_turn):
            yield open_turn
            open_turn = None
        if open_turn is None:
            open_turn = {"role": "assistant", "content": ""}
        if isinstance(item, ReasoningItem):
            open_turn["reasoning_content"] = open_turn.get("reasoning_content", "") + item.text
        elif isinstance(item, InputMessage):
            open_turn["content"] += item.text
        else:
            calls = open_turn.setdefault("tool_calls", [])
            calls.append(call_as_template_input(item.call_id, item.name, item.arguments))
    if open_turn is not None:
        yield open_turn


def _spoke(turn: Turn) -> bool:
    return bool(turn["content"]) or "tool_calls" in turn


ResponsesRequest = with_controls("ResponsesRequest", ResponsesBody, "max_tool_calls", "prompt_cache_options")
