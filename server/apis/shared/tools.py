"""Tools and formats of answers, as OpenAI's chat API writes them."""

from typing import Annotated, Any, Literal, Self, get_args

import orjson
from pydantic import AfterValidator, Field, model_validator

from models.engines.base import Grammar, GrammarKind
from models.tool_calls.tools import Choice, Tool
from server.apis.shared.request import OutputConstraints
from server.apis.shared.sampling_fields import Body, Flag, Text, by_type, of_type

MAX_TOOLS = 128
ToolName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]


def _written(value: dict[str, Any]) -> dict[str, Any]:
    """Raises `ValueError` for numbers and depths that JSON can spell and no other end of the wire would read."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_written)]


class FunctionDefinition(Body):
    name: ToolName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: Flag | None = None  # arguments always keep to the schema

    def as_tool(self) -> Tool:
        return Tool(self.name, self.parameters, self.description)


class FunctionTool(Body):
    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Body):
    name: ToolName


class NamedFunction(Body):
    type: Literal["function"]
    function: FunctionName


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class JsonSchema(Body):
    name: Text
    schema_: Annotated[JsonObject, Field(alias="schema")]
    description: Text | None = None
    strict: Flag | None = None


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[TextFormat, of_type("text")]
    | Annotated[JsonObjectFormat, of_type("json_object")]
    | Annotated[JsonSchemaFormat, of_type("json_schema")],
    by_type(),
]


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

    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: Flag | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_choice([tool.function.name for tool in self.tools or ()], self.choice, self.named)
        if self.structured_outputs and self.response_format and self.response_format.type != "text":
            raise ValueError("response_format and structured_outputs contradict each other")
        return self

    @property
    def named(self) -> str | None:
        return self.tool_choice.function.name if isinstance(self.tool_choice, NamedFunction) else None

    @property
    def choice(self) -> Choice:
        if isinstance(self.tool_choice, NamedFunction):
            return "required"
        return self.tool_choice or "auto"

    def answer_wish(self) -> OutputConstraints:
        return OutputConstraints(
            [tool.function.as_tool() for tool in self.tools or ()],
            self.choice,
            self.named,
            self.parallel_tool_calls is not False,
            self._text(),
        )

    def _text(self) -> Grammar | None:
        if self.structured_outputs is not None:
            return self.structured_outputs.as_grammar()
        match self.response_format:
            case JsonSchemaFormat(json_schema=wanted):
                return Grammar("json", wanted.schema_)
            case JsonObjectFormat():
                return Grammar("json_object", True)
        return None


def check_choice(names: list[str], choice: Choice, named: str | None) -> None:
    """Raises `ValueError` where the choice does not fit the tools."""
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"tools: there are two tools called {min(twice)}")
    if choice == "required" and not names:
        raise ValueError("tool_choice: there are no tools to choose from")
    if named is not None and named not in names:
        raise ValueError(f"tool_choice: there is no tool called {named}")
