"""The items of a conversation on /v1/responses, and how they become turns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, TypeAdapter

from controllers.policy.controls import PolicyError
from server.apis.shared.messages import (
    CUSTOM_INPUT,
    Content,
    Lenient,
    Message,
    MessageReader,
    Turn,
    call_as_template_input,
)
from server.apis.shared.sampling_fields import JsonObject, Text

Find = Callable[[str], Mapping[str, Any] | None]
"""The item of a kept response that has this id, or None."""


class InputMessage(Message):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]


class FunctionCallItem(Lenient):
    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text | JsonObject | None = None
    namespace: Text | None = None


class CustomCallItem(Lenient):
    type: Literal["custom_tool_call"]
    call_id: Text
    name: Text
    input: Text | None
    namespace: Text | None = None


class LocalShellCall(Lenient):
    type: Literal["local_shell_call"]
    call_id: Text | None = None
    action: JsonObject


class CallOutput(Lenient):
    type: Literal["function_call_output", "custom_tool_call_output", "local_shell_call_output"]
    call_id: Text | None = None
    output: Content = None


class ReasoningItem(Lenient):
    type: Literal["reasoning"]
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: Text | None = None


class ItemReference(Lenient):
    type: Literal["item_reference"] | None = None
    id: Text


class OtherItem(Lenient):
    """What servers that run tools themselves have written, and what newer clients send."""

    type: Text


_OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
_KINDS: Mapping[str | None, str] = {
    **dict.fromkeys(_OUTPUTS, "output"),
    **{
        kind: kind
        for kind in ("message", "function_call", "custom_tool_call", "local_shell_call", "reasoning", "item_reference")
    },
}


def _kind(item: Any) -> str:
    fields = item if isinstance(item, Mapping) else getattr(item, "__dict__", {})
    kind = fields.get("type")
    if kind is None:
        kind = "item_reference" if "id" in fields and "role" not in fields else "message"
    if not isinstance(kind, str) or (kind not in _KINDS and "role" in fields):  # a message that is not read is lost
        return "<>"
    return f"<{_KINDS.get(kind, 'other')}>"


InputItem = Annotated[
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[CustomCallItem, Tag("<custom_tool_call>")]
    | Annotated[LocalShellCall, Tag("<local_shell_call>")]
    | Annotated[CallOutput, Tag("<output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
    | Annotated[OtherItem, Tag("<other>")],
    Discriminator(_kind, custom_error_type="type", custom_error_message="unknown type"),
]
ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


def resolved(items: Sequence[Any], find: Find) -> list[Any]:
    """The items with references replaced by what they refer to. Raises `PolicyError` where that is not kept."""
    return [_referred(item.id, i, find) if isinstance(item, ItemReference) else item for i, item in enumerate(items)]


def _referred(item_id: str, index: int, find: Find) -> Any:
    found = find(item_id)
    if found is None:
        raise PolicyError(f"input.{index}.id: no item with this id is kept here", f"input.{index}.id")
    return ITEMS.validate_python([found])[0]


def turns(items: Sequence[Any], reader: MessageReader) -> list[Turn]:
    """Items as turns: what the assistant thought, said and called in a row is one."""
    joined: list[Turn] = []
    for item in items:
        for turn in _turns(item, reader):
            if joined and turn["role"] == "assistant" == joined[-1]["role"] and _goes_on(joined[-1], turn):
                _append(joined[-1], turn)
            else:
                joined.append(turn)
    return joined


def _goes_on(turn: Turn, piece: Turn) -> bool:
    """Thinking behind an answer or a call begins a turn of its own."""
    spoke = turn["content"] or "tool_calls" in turn
    return not (spoke and "reasoning_content" in piece) and isinstance(turn["content"], str) is isinstance(
        piece["content"], str
    )


def _append(turn: Turn, piece: Turn) -> None:
    turn["content"] += piece["content"]
    if "reasoning_content" in piece:
        turn["reasoning_content"] = turn.get("reasoning_content", "") + piece["reasoning_content"]
    if "tool_calls" in piece:
        turn["tool_calls"] = turn.get("tool_calls", []) + piece["tool_calls"]


def _turns(item: Any, reader: MessageReader) -> Iterator[Turn]:
    match item:
        case InputMessage():
            yield from reader.turns([item])
        case CallOutput(output=output, call_id=call_id):
            turn = {"role": "tool", "content": reader.content(output), "tool_call_id": call_id}
            yield {key: value for key, value in turn.items() if value is not None}
        case ReasoningItem():
            thought = reader.thought(item.content) or reader.thought(item.summary) or reader.thought(vars(item))
            yield {"role": "assistant", "content": ""} | ({"reasoning_content": thought} if thought else {})
        case FunctionCallItem(arguments=arguments):
            yield _call(item.call_id, flat_name(item.name, item.namespace), arguments)
        case CustomCallItem(input=text):
            yield _call(item.call_id, flat_name(item.name, item.namespace), {CUSTOM_INPUT: text or ""})
        case LocalShellCall(action=action):
            yield _call(item.call_id, "local_shell", action)
        case OtherItem(type=kind):
            reader.notes[f"input items of type {kind} were left out"] = None


def _call(call_id: str | None, name: str, arguments: str | Mapping[str, Any] | None) -> Turn:
    call = call_as_template_input(call_id, name, arguments)
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def flat_name(name: str, namespace: str | None) -> str:
    """The one name under which the model knows a tool."""
    return f"{namespace}__{name}" if namespace else name
