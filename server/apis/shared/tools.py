"""Tools and formats of answers: what each API writes comes to the same few forms here."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from models.engines.base import Grammar, GrammarKind
from models.tool_calls.tools import Choice, Tool
from server.apis.shared.messages import CUSTOM_INPUT, Lenient
from server.apis.shared.request import OutputConstraints
from server.apis.shared.sampling_fields import Body, Flag, JsonObject, Text, by_type, of_type

MAX_TOOLS = 4096
ToolName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]


@dataclass(frozen=True, slots=True)
class ReadTool:
    """A tool as its client sent it. `tool` is what the model may be shown of it, None where nobody here runs it; a
    `deferred` one is shown when a message names it."""

    field: str
    kind: str
    tool: Tool | None = None
    deferred: bool = False
    namespace: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The tools of a request."""

    tools: Sequence[ReadTool] = ()

    @property
    def names(self) -> list[str]:
        return [read.tool.name for read in self.tools if read.tool is not None]

    @property
    def hosted(self) -> Mapping[str, str]:
        return {read.field: read.kind for read in self.tools if read.tool is None}

    @property
    def custom(self) -> frozenset[str]:
        return frozenset(read.tool.name for read in self.tools if read.tool is not None and read.kind == "custom")

    @property
    def namespaces(self) -> Mapping[str, tuple[str, str]]:
        return {read.tool.name: read.namespace for read in self.tools if read.tool is not None and read.namespace}

    def shown(self, named: Container[str]) -> list[Tool]:
        """Deferred ones only if named, unless who was to find them is a tool that nobody here runs."""
        lost = any("tool_search" in kind for kind in self.hosted.values())
        read = [each for each in self.tools if each.tool is not None]
        return [each.tool for each in read if each.tool and (lost or not each.deferred or each.tool.name in named)]

    def constraints(self, choice: "ToolChoice", named: Iterable[str], parallel: bool, **text: Any) -> OutputConstraints:
        """With the tools that messages have `named`, and those that the choice names."""
        return OutputConstraints(
            self.shown({*named, *(choice.allowed or ())}),
            choice.choice,
            choice.allowed,
            parallel and not choice.single,
            custom=self.custom,
            namespaces=self.namespaces,
            **text,
        )


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called, and which may be (None: all of them)."""

    choice: Choice = "auto"
    allowed: frozenset[str] | None = None
    single: bool = False


def named_tool(name: str) -> ToolChoice:
    return ToolChoice("required", frozenset({name}), single=True)


def custom_tool(name: str, description: str | None, form: Mapping[str, Any] | None) -> Tool:
    """A tool of one string, as a function: models know no other kind. A grammar of its input is told in words."""
    nested = (form or {}).get("grammar")  # on chat completions
    grammar = (nested if isinstance(nested, dict) else form or {}).get("definition")
    said = [description, f"The input keeps to this grammar:\n{grammar}" if isinstance(grammar, str) else None]
    parameters = {
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string"}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    }
    return Tool(name, parameters, "\n\n".join(filter(None, said)) or None)


class FunctionDefinition(Lenient):
    name: ToolName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: Flag | None = None  # arguments always keep to the schema

    def as_tool(self) -> Tool:
        return Tool(self.name, self.parameters, self.description)


class FunctionTool(Lenient):
    type: Literal["function"]
    function: FunctionDefinition


class CustomDefinition(Lenient):
    name: ToolName
    description: Text | None = None
    format: JsonObject | None = None

    def as_tool(self) -> Tool:
        return custom_tool(self.name, self.description, self.format)


class CustomTool(Lenient):
    type: Literal["custom"]
    custom: CustomDefinition


ChatTool = Annotated[Annotated[FunctionTool, of_type("function")] | Annotated[CustomTool, of_type("custom")], by_type()]


class Named(Lenient):
    name: ToolName


class NamedFunction(Lenient):
    type: Literal["function"]
    function: Named


class NamedCustom(Lenient):
    type: Literal["custom"]
    custom: Named


NamedTool = Annotated[
    Annotated[NamedFunction, of_type("function")] | Annotated[NamedCustom, of_type("custom")], by_type()
]


class AllowedFunctions(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedFunctions


def _of_kind(tool: "FunctionTool | CustomTool | NamedFunction | NamedCustom") -> Any:
    """What a tool's `type` names the field of."""
    return getattr(tool, tool.type)


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    """A schema. The Responses API and Anthropic's have it for a format as it is, chat completions one level deeper."""

    type: Literal["json_schema"] = "json_schema"
    name: Text | None = None
    schema_: Annotated[JsonObject, Field(alias="schema")]
    description: Text | None = None
    strict: Flag | None = None


class NestedSchemaFormat(Body):
    """Chat completions."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaFormat


ResponseFormat = Annotated[
    Annotated[TextFormat, of_type("text")]
    | Annotated[JsonObjectFormat, of_type("json_object")]
    | Annotated[NestedSchemaFormat, of_type("json_schema")],
    by_type(),
]


def format_grammar(form: Body | None) -> Grammar | None:
    """The grammar of an answer's format; None: any text will do."""
    match form:
        case JsonSchemaFormat(schema_=schema) | NestedSchemaFormat(json_schema=JsonSchemaFormat(schema_=schema)):
            return Grammar("json", schema)
        case JsonObjectFormat():
            return Grammar("json_object", True)
    return None


class StructuredOutputs(Body):
    """vLLM's own constraints: exactly one."""

    json_: Annotated[JsonObject | Text | None, Field(alias="json")] = None
    json_object: Literal[True] | None = None
    regex: Annotated[str, Field(strict=True, min_length=1)] | None = None
    choice: Annotated[list[Text], Field(min_length=1, max_length=1024)] | None = None
    grammar: Annotated[str, Field(strict=True, min_length=1)] | None = None
    structural_tag: Annotated[str, Field(strict=True, min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one kind of constraint is needed")
        return self

    def as_grammar(self) -> Grammar:
        kinds: tuple[GrammarKind, ...] = get_args(GrammarKind)
        given = {kind: getattr(self, "json_" if kind == "json" else kind) for kind in kinds}
        return next(Grammar(kind, value) for kind, value in given.items() if value is not None)


class AnswerFields(Body):
    """How the answer is wanted."""

    tools: Annotated[list[ChatTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | NamedCustom | AllowedTools | None = None
    parallel_tool_calls: Flag | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tools or self.tool_choice:
            check_choice(self.tool_set.names, self.choice)
        if self.structured_outputs and self.response_format and self.response_format.type != "text":
            raise ValueError("response_format and structured_outputs contradict each other")
        return self

    @cached_property
    def tool_set(self) -> ToolSet:
        tools = enumerate(self.tools or ())
        return ToolSet([ReadTool(f"tools.{i}", tool.type, _of_kind(tool).as_tool()) for i, tool in tools])

    @property
    def choice(self) -> ToolChoice:
        match self.tool_choice:
            case NamedFunction(function=named) | NamedCustom(custom=named):
                return named_tool(named.name)
            case AllowedTools(allowed_tools=allowed):
                return ToolChoice(allowed.mode, frozenset(_of_kind(tool).name for tool in allowed.tools))
            case _:
                return ToolChoice(self.tool_choice or "auto")

    def constraints(self) -> OutputConstraints:
        constraint = self.structured_outputs
        text = constraint.as_grammar() if constraint is not None else format_grammar(self.response_format)
        return self.tool_set.constraints(self.choice, (), self.parallel_tool_calls is not False, text=text)


def check_choice(names: Sequence[str], choice: ToolChoice) -> None:
    """Raises `ValueError` where the choice does not fit the tools."""
    if names and (most := Counter(names).most_common(1)[0])[1] > 1:
        raise ValueError(f"tools: there are two tools called {most[0]}")
    if choice.choice == "required" and not names:
        raise ValueError("tool_choice: there are no tools to choose from")
    if unknown := (choice.allowed or frozenset()).difference(names):
        raise ValueError(f"tool_choice: there is no tool called {min(unknown)}")
