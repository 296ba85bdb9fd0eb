"""Earlier turns as a model's chat template wants them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from models.formats.reasoning import History

THINKING = "reasoning_content"  # the field in which every API hands the thinking of a turn over
AS_GIVEN = History()
SHORT = "$short"

Message = Mapping[str, Any]


def written(messages: Sequence[Message], history: History, word: str = "") -> Sequence[Message]:
    """The conversation in the template's own fields, with `word` in its system message."""
    if history != AS_GIVEN:
        messages = [_turn(message, history) if message["role"] == "assistant" else message for message in messages]
        messages = [_short(message) for message in messages] if history.ids == SHORT else messages
    elif any(isinstance(arguments, str) for message in messages for arguments in _arguments(message)):
        messages = [_turn(message, history) for message in messages]
    return _with_word(messages, word) if word else messages


def _turn(message: Message, history: History) -> Message:
    turn = dict(message)
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [_call(call, history) for call in calls]
        if history.silent == "null" and not turn.get("content"):
            turn["content"] = None
    thought = turn.pop(THINKING, None)
    if thought and history.thinking == "blocks":
        blocks = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": turn.get("content") or ""}]
        turn["content"] = [block for block in blocks if block.get("text", thought)]
    elif history.thinking == "thoughts":  # such a template takes no text beside such an object
        blocks = [{"type": "thoughts", "text": thought}, {"type": "response", "text": turn.get("content")}]
        turn["content"] = {"blocks": [block for block in blocks if block["text"]]}
    elif thought:
        turn[history.thinking] = thought
    return turn


def _call(call: Mapping[str, Any], history: History) -> dict[str, Any]:
    """A call with its arguments as the template takes them. What a length limit cut off is no object: templates that
    walk through one get an empty one."""
    function = call["function"]
    arguments = function["arguments"]
    if history.arguments == "text" and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif history.arguments == "object" and isinstance(arguments, str):
        arguments = {}
    return {**call, "function": {**function, "arguments": arguments}}


def _short(message: Message) -> Message:
    """A message whose ids of calls are nine letters and digits, the same for the same id."""
    shortened = {"tool_call_id": _short_id(message["tool_call_id"])} if message.get("tool_call_id") else {}
    calls = [{**call, "id": _short_id(call["id"])} for call in message.get("tool_calls") or () if call.get("id")]
    return {**message, **shortened, **({"tool_calls": calls} if calls else {})}


def _short_id(call_id: str) -> str:
    return call_id if re.fullmatch("[A-Za-z0-9]{9}", call_id) else sha256(call_id.encode()).hexdigest()[:9]


def _arguments(message: Message) -> Iterable[Any]:
    return (call["function"]["arguments"] for call in message.get("tool_calls") or ())


def _with_word(messages: Sequence[Message], word: str) -> Sequence[Message]:
    if not messages or messages[0]["role"] != "system":
        return [{"role": "system", "content": word}, *messages]
    first = messages[0]
    return [{**first, "content": f"{first['content']}\n{word}"}, *messages[1:]]
