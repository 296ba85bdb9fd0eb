"""Messages of every API, read into turns as chat templates take them.

Keys that no class here names pass: they cannot change how much is thought. A turn is a JSON object with `role` and
`content`, and where there is some with `reasoning_content`, `tool_calls` and `tool_call_id`. Its content is a string,
or a list of parts while it holds what may not be text (`fitted` makes it a string for models that read text only).
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, model_validator

from models.formats.template import SystemPlace
from models.tool_calls.tools import json_object
from server.apis.shared.sampling_fields import JsonObject, Text

Turn = dict[str, Any]
Turns = Sequence[Mapping[str, Any]]
Tags = tuple[str, str]
Unseal = Callable[[str], str | None]
"""The text of a thought that this server has sealed, or None."""


def sealed_elsewhere(sealed: str) -> str | None:
    """Where nothing is sealed, nothing is unsealed."""
    del sealed
    return None


class Lenient(BaseModel):
    """What clients send back as they got it. Keys that it does not name are kept and not read."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class TextPart(Lenient):
    type: Literal["text", "input_text", "output_text"] = "text"
    text: Text | None


class RefusalPart(Lenient):
    type: Literal["refusal"]
    refusal: Text | None


class ThinkingPart(Lenient):
    """Under whichever of its names: `thought_in` finds it."""

    type: Text


class ToolUsePart(Lenient):
    type: Literal["tool_use"]
    id: Text | None = None
    name: Text
    input: Text | JsonObject | None


class ToolReferencePart(Lenient):
    """A tool that a search has found: its definition is read from now on."""

    type: Literal["tool_reference"]
    tool_name: Text


class OtherPart(Lenient):
    """An image, a file, or what newer clients send."""

    type: Text

    @property
    def image(self) -> str | None:
        """The file of an image that the request brings along, in base64."""
        extra = self.model_extra or {}
        where = extra.get("image_url") or extra.get("source")
        url = (where.get("url") or where.get("data")) if isinstance(where, dict) else where
        if "image" not in self.type or not isinstance(url, str) or url.startswith(("http:", "https:")):
            return None
        return url.rpartition(",")[2]

    @property
    def plain(self) -> str | None:
        """The text of a document or a search result that is text, behind its title."""
        fields = self.model_extra or {}
        source = fields.get("source")
        text = _plain(source if isinstance(source, dict) else {"content": fields.get("content")})
        title = fields.get("title") if text is not None else None
        return f"{title}\n{text}" if isinstance(title, str) and title else text


def _plain(source: Mapping[str, Any]) -> str | None:
    """The text in the source of a document, where all of it is text."""
    if source.get("type") == "text" and isinstance(source.get("data"), str):
        return str(source["data"])
    content = source.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if parts and len(texts) == len(parts) else None


class ToolResultPart(Lenient):
    type: Literal["tool_result"]
    tool_use_id: Text | None = None
    content: "Text | list[Part] | None" = None


KINDS: Mapping[str, str] = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text"), "thinking"),
    **{kind: kind for kind in ("refusal", "tool_use", "tool_result", "tool_reference")},
}


def _kind(part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else getattr(part, "type", None)
    return f"<{KINDS.get(kind, 'other')}>" if isinstance(kind, str) else "<>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[RefusalPart, Tag("<refusal>")]
    | Annotated[ThinkingPart, Tag("<thinking>")]
    | Annotated[ToolUsePart, Tag("<tool_use>")]
    | Annotated[ToolResultPart, Tag("<tool_result>")]
    | Annotated[ToolReferencePart, Tag("<tool_reference>")]
    | Annotated[OtherPart, Tag("<other>")],
    Discriminator(_kind, custom_error_type="type", custom_error_message="unknown type"),
]
Content = Text | list[Part] | None
Thought = Text | list[Any] | dict[str, Any] | None


class FunctionCall(Lenient):
    name: Text
    arguments: Text | JsonObject | None = None


class CustomCall(Lenient):
    name: Text
    input: Text | None


class ToolCall(Lenient):
    """A call as chat completions write it."""

    id: Text | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None

    @model_validator(mode="after")
    def _calls(self) -> Self:
        if (self.function is None) == (self.custom is None):
            raise ValueError("function: a tool call names a function")
        return self

    def as_template_input(self) -> Turn:
        if self.function is not None:
            return call_as_template_input(self.id, self.function.name, self.function.arguments)
        assert self.custom is not None
        return call_as_template_input(self.id, self.custom.name, {CUSTOM_INPUT: self.custom.input or ""})


CUSTOM_INPUT = "input"
"""The one argument under which the model writes the input of a custom tool."""


def call_as_template_input(call_id: str | None, name: str, arguments: str | Mapping[str, Any] | None) -> Turn:
    """A call of an earlier turn. Templates walk through its arguments, so what is no object becomes one."""
    if isinstance(arguments, str):
        known = json_object(arguments)
        arguments = {"arguments": arguments} if known is None and arguments not in ("", "null", "[]") else known
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": dict(arguments or {})}}


class Message(Lenient):
    """One message of chat completions or of Anthropic's API."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    reasoning_content: Thought = None
    reasoning: Thought = None
    reasoning_details: Thought = None
    reasoning_text: Thought = None
    thinking: Thought = None
    thinking_blocks: Thought = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role not in ("assistant", "tool", "function"):
            raise ValueError("content: a message needs content")
        return self

    @property
    def parts(self) -> Sequence[Any]:
        return self.content if isinstance(self.content, list) else ()

    @property
    def tools_named(self) -> Iterator[str]:
        """The tools that it refers to or calls, whose definitions the model must be shown."""
        for part in self.parts:
            if isinstance(part, ToolUsePart):
                yield part.name
            elif isinstance(part, ToolResultPart) and isinstance(part.content, list):
                yield from (each.tool_name for each in part.content if isinstance(each, ToolReferencePart))


ROLES = {"developer": "system", "function": "tool"}
"""Roles that clients know, under the names by which templates know them."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_details", "thinking_blocks")
UNREAD = {
    False: "this model reads text only",
    True: "only images that a user's message brings along are read",
}
"""Why a part is not read, by whether the model sees."""
SEALED = "some thinking of earlier turns is sealed by another server and was left out"


@dataclass(slots=True)
class MessageReader:
    """Reads the messages of one request. `notes` is what it could not read, each kind once."""

    unseal: Unseal = sealed_elsewhere
    notes: dict[str, None] = field(default_factory=dict)

    def turns(self, messages: Iterable[Message]) -> list[Turn]:
        return [turn for message in messages for turn in self._turns(message)]

    def _turns(self, message: Message) -> Iterator[Turn]:
        """Results of tools are turns of their own, before the words beside them."""
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        for result in results:
            yield {"role": "tool", "content": self.content(result.content), "tool_call_id": result.tool_use_id}
        if len(results) == len(message.parts) > 0:
            return
        turn: Turn = {"role": ROLES.get(message.role, message.role)}
        turn["content"] = self.content(message.content)
        if message.role == "assistant":
            turn |= self._assistant(message)
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
        yield turn

    def _assistant(self, message: Message) -> Iterator[tuple[str, Any]]:
        named = (self.thought(getattr(message, name)) for name in THOUGHTS)
        thought = next(filter(None, named), "") or self.thought(
            [part.model_dump() for part in message.parts if isinstance(part, ThinkingPart)]
        )
        calls = [call.as_template_input() for call in message.tool_calls or ()]
        if (older := message.function_call) is not None:
            calls.append(call_as_template_input(None, older.name, older.arguments))
        uses = [part for part in message.parts if isinstance(part, ToolUsePart)]
        calls += [call_as_template_input(use.id, use.name, use.input) for use in uses]
        if thought:
            yield "reasoning_content", thought
        if calls:
            yield "tool_calls", calls

    def thought(self, value: Any) -> str:
        """The thinking in whatever carries it: a string, an object, or a list of such."""
        if isinstance(value, str) or value is None:
            return value or ""
        if isinstance(value, list):
            return "".join(map(self.thought, value))
        if not isinstance(value, dict):
            return ""
        for name in ("thinking", "text", "summary", "content", "reasoning"):
            if text := self.thought(value.get(name)):
                return text
        sealed = next((value[key] for key in ("signature", "data", "encrypted_content") if value.get(key)), None)
        unsealed = self.unseal(sealed) if isinstance(sealed, str) else None
        if sealed and unsealed is None:
            self.notes[SEALED] = None
        return unsealed or ""

    def content(self, content: str | Sequence[Any] | None) -> str | list[Turn]:
        """Text, or parts where something else stands between it."""
        if content is None or isinstance(content, str):
            return content or ""
        shown = [piece for part in content if (piece := _shown(part)) is not None]
        if all(piece["type"] == "text" for piece in shown):
            return "\n".join(piece["text"] for piece in shown)
        return shown


def _shown(part: Any) -> Turn | None:
    """A part that the model may read, in the form of chat templates."""
    match part:
        case TextPart(text=text) | RefusalPart(refusal=text):
            return {"type": "text", "text": text or ""}
        case ToolReferencePart(tool_name=name):
            return {"type": "text", "text": f"[tool: {name}]"}
        case OtherPart(image=str() as image):
            return {"type": part.type, "image": image}
        case OtherPart(plain=None):
            return {"type": part.type}
        case OtherPart(plain=text):
            return {"type": "text", "text": text}
    return None


@dataclass(frozen=True, slots=True)
class Fitted:
    """Turns as one model reads them, and what of them it does not read."""

    turns: Turns
    notes: tuple[str, ...]
    images: tuple[bytes, ...] = ()


def fitted(turns: Turns, system: SystemPlace, tags: Tags | None, *, continued: bool, sees: bool = False) -> Fitted:
    """The turns for a template that takes system turns as `system` says and a model that thinks between `tags`. With
    `continued` the reply goes on from the last turn. A model that `sees` is shown the images of its user."""
    kinds: dict[str, None] = {}
    images: list[bytes] = []
    seen = [_readable(turn, kinds, images, sees) for turn in turns]
    if tags is not None:
        last = len(seen) - 1 if continued else len(seen)
        seen = [_thought_apart(turn, tags) if i < last else _thought_open(turn, tags) for i, turn in enumerate(seen)]
    notes = tuple(f"{kind} parts were left out: {UNREAD[sees]}" for kind in kinds)
    return Fitted(_system_placed(seen, system), notes, tuple(images))


def _readable(turn: Mapping[str, Any], kinds: dict[str, None], images: list[bytes], sees: bool) -> Mapping[str, Any]:
    """A turn as a string; or as parts, where it is a user's with images that the model sees."""
    if not isinstance(turn["content"], list):
        return turn
    parts = []
    for part in turn["content"]:
        if part["type"] == "text":
            parts.append(part)
        elif sees and turn["role"] == "user" and (image := _decoded(part.get("image", ""))):
            images.append(image)
            parts.append({"type": "image"})
        else:
            kind = part["type"].removeprefix("input_").removesuffix("_url")
            kinds[kind] = None
            parts.append({"type": "text", "text": f"[{kind}: {UNREAD[sees]}]"})
    if all(part["type"] == "text" for part in parts):
        return {**turn, "content": "\n".join(part["text"] for part in parts)}
    return {**turn, "content": parts}


def _decoded(image: str) -> bytes:
    """Empty where it is no base64."""
    try:
        return b64decode(image, validate=True)
    except ValueError:
        return b""


def _thought_apart(turn: Mapping[str, Any], tags: Tags) -> Mapping[str, Any]:
    """An assistant's turn whose content begins with a block of thinking, the block in its own field."""
    begun = turn["content"].lstrip() if turn["role"] == "assistant" else ""
    if not begun.startswith(tags[0]):
        return turn
    thought, _, answer = begun.removeprefix(tags[0]).partition(tags[1])
    thought = turn.get("reasoning_content") or thought.strip("\n")
    return {**turn, "content": answer.lstrip("\n"), **({"reasoning_content": thought} if thought else {})}


def begun_answer(turn: Mapping[str, Any], tags: Tags | None) -> str:
    """What of the answer a turn has from which the reply goes on."""
    text: str = turn["content"].strip()
    if tags is not None and text.startswith(tags[0]):
        text = text.rpartition(tags[1])[2].strip() if tags[1] in text else ""
    return text


def _thought_open(turn: Mapping[str, Any], tags: Tags) -> Mapping[str, Any]:
    """A turn that ends in its thinking, as text: templates end the thinking that they are given."""
    if turn["content"] or not turn.get("reasoning_content"):
        return turn
    rest = {key: value for key, value in turn.items() if key != "reasoning_content"}
    return {**rest, "content": f"{tags[0]}\n{turn['reasoning_content']}"}


def _system_placed(turns: Turns, system: SystemPlace) -> Turns:
    """All system turns as one in front, or before the words of the first user, where the template wants that."""
    said = [turn["content"] for turn in turns if turn["role"] == "system"]
    alone = len(said) == 1 and turns[0]["role"] == "system"
    if system == "anywhere" or not said or (system == "first" and alone):
        return turns
    text = "\n\n".join(filter(None, said))
    others = [turn for turn in turns if turn["role"] != "system"]
    if system == "first":
        return [{"role": "system", "content": text}, *others]
    first = others.pop(0)["content"] if others and others[0]["role"] == "user" else ""
    if isinstance(first, list):
        return [{"role": "user", "content": [{"type": "text", "text": text}, *first]}, *others]
    return [{"role": "user", "content": "\n\n".join(filter(None, (text, first)))}, *others]


def text_turns(messages: Iterable[Message]) -> Turns:
    """The turns for who reads text and no template."""
    return fitted(MessageReader().turns(messages), "anywhere", None, continued=False).turns
