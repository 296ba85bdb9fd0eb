"""What a reply tells its client, on every API, streamed and whole: thinking, answer, calls, and why it ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass
class Told:
    """`calls` are pairs of a name and arguments as they were written, or the input of a custom tool."""

    thinking: str = ""
    answer: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    end: str | None = None

    def call(self, name: str | None, text: str) -> None:
        """A call that begins, or, without a name, a piece of the last one."""
        if name is not None:
            self.calls.append((name, ""))
        began, written = self.calls[-1]
        self.calls[-1] = (began, written + text)


def told_whole(body: Json) -> Told:
    if "choices" in body:
        choice = body["choices"][0]
        return _chat([{"delta": choice["message"], "finish_reason": choice["finish_reason"]}])
    if "output" in body:
        return _response(body)
    told = Told(end=body["stop_reason"])
    for block in body["content"]:
        _begun(told, block)
        if block["type"] == "tool_use":
            told.call(None, json.dumps(block["input"]))
    return told


def told_in_stream(events: Sequence[Json]) -> Told:
    if "choices" in events[0]:
        return _chat([choice for event in events for choice in event["choices"] if choice["index"] == 0])
    if events[0]["type"] == "message_start":
        return _message(events)
    told = _response(events[-1]["response"])
    assert told == _items(events, told.end)
    return told


def _chat(choices: Sequence[Json]) -> Told:
    told = Told()
    for choice in choices:
        delta = choice["delta"]
        told.thinking += delta.get("reasoning") or ""
        told.answer += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            said = call.get("function") or call["custom"]
            told.call(said.get("name"), said.get("arguments", said.get("input")))
        told.end = choice["finish_reason"] or told.end
    return told


def _begun(told: Told, block: Json) -> None:
    if block["type"] == "tool_use":
        told.call(block["name"], "")
    told.thinking += block.get("thinking", "")
    told.answer += block.get("text", "")


def _message(events: Sequence[Json]) -> Told:
    told = Told()
    for event in events:
        delta = event.get("delta", {})
        if event["type"] == "content_block_start":
            _begun(told, event["content_block"])
        elif event["type"] == "message_delta":
            told.end = delta["stop_reason"]
        elif "partial_json" in delta:
            told.call(None, delta["partial_json"])
        else:
            _begun(told, {"type": "", **delta})
    return told


def _response(body: Json) -> Told:
    told = Told(end=body["status"])
    for item in body["output"]:
        if "name" in item:
            told.call(item["name"], item.get("arguments", item.get("input")))
        for part in item.get("content", ()):
            if item["type"] == "reasoning":
                told.thinking += part["text"]
            else:
                told.answer += part["text"]
    return told


def _items(events: Sequence[Json], end: str | None) -> Told:
    """A response, from the pieces alone."""
    told = Told(end=end)
    for event in events:
        item, delta = event.get("item", {}), event.get("delta", "")
        if event["type"] == "response.output_item.added" and "name" in item:
            told.call(item["name"], "")
        elif event["type"] == "response.reasoning_text.delta":
            told.thinking += delta
        elif event["type"] == "response.output_text.delta":
            told.answer += delta
        elif event["type"] in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            told.call(None, delta)
    return told
