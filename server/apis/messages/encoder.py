"""A message of Anthropic's API: its content blocks, and the events that tell of them."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from controllers.generation.events import Decision, Event, Finished
from models.formats.chunks import Chunk, Kind
from models.tool_calls.tools import json_object
from server.apis.messages.schema import MessagesRequest
from server.apis.messages.seal import Seal
from server.apis.shared.generation import Generation
from server.apis.shared.reply import Part, ReplyEncoder, decision_headers, progress_record
from server.edges.errors import ApiError
from server.edges.sse import named_event
from server.observability.request_observer import UsageCounter

BLOCKS: dict[Kind, str] = {"reasoning": "thinking", "tool": "tool_use"}  # the rest is text


class MessageEncoder(ReplyEncoder):
    """One reply. Thinking that the client wants to carry without reading it (`display: "omitted"`) is in the signature
    of its block, sealed: the next request brings it back."""

    def __init__(self, generation: Generation, body: MessagesRequest, seal: Seal, request_id: str) -> None:
        wish = getattr(body, "thinking", None)
        self._seal = seal if isinstance(wish, Mapping) and wish.get("display") == "omitted" else None
        super().__init__(1, generation.hidden if self._seal is None else ("budget",), generation.observer.usage)
        self._generation = generation
        self._request_id = request_id
        self._open: Part | None = None
        self._index = -1

    def frame(self, index: int, event: Event) -> bytes:
        return b"".join(map(named_event, self._events(event)))

    def failed(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + error.anthropic_body(self._request_id) + b"\n\n"

    def alive(self) -> bytes:
        """A ping; before the message has started, which is what clients expect first, a comment."""
        return named_event({"type": "ping"}) if self.choices[0].decision is not None else super().alive()

    def whole(self) -> dict[str, Any]:
        choice = self.choices[0]
        return self._message([self._block(part) for part in choice.parts], *_stop(choice.end), choice.record)

    def _message(
        self, content: list[dict[str, Any]], reason: str | None, sequence: str | None, record: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self._generation.reply_id,
            "type": "message",
            "role": "assistant",
            "model": self._generation.route.name,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": _usage(self.usage),
            "reasond": record,
        }

    def _events(self, event: Event) -> Iterator[dict[str, Any]]:
        part = self.choices[0].add(event)
        if isinstance(event, Chunk):
            if part is not None:
                yield from self._chunk(part, event.text)
        elif isinstance(event, Decision):
            self.headers.update(decision_headers(event))
            yield {"type": "message_start", "message": self._message([], None, None, event.record())}
        elif isinstance(event, Finished):
            yield from self._close()
            reason, sequence = _stop(event)
            delta = {"stop_reason": reason, "stop_sequence": sequence}
            yield {"type": "message_delta", "delta": delta, "usage": _usage(self.usage), "reasond": event.record}
            yield {"type": "message_stop"}
        else:
            yield {"type": "ping", "reasond": progress_record(event)}

    def _chunk(self, part: Part, text: str) -> Iterator[dict[str, Any]]:
        if part is not self._open:
            yield from self._close()
            self._open = part
            self._index += 1
            yield self._at("content_block_start", content_block=_begun(part))
        if text and not (self._seal and part.kind == "reasoning"):
            kind = BLOCKS.get(part.kind, "text")
            delta = {"type": f"{kind}_delta", kind: text}
            if kind == "tool_use":
                delta = {"type": "input_json_delta", "partial_json": text}
            yield self._at("content_block_delta", delta=delta)

    def _close(self) -> Iterator[dict[str, Any]]:
        part, self._open = self._open, None
        if part is None:
            return
        if part.kind == "reasoning":
            delta = {"type": "signature_delta", "signature": self._signature(part.text)}
            yield self._at("content_block_delta", delta=delta)
        yield self._at("content_block_stop")

    def _at(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "index": self._index, **fields}

    def _block(self, part: Part) -> dict[str, Any]:
        """A block as it ends. Arguments that are cut off in the middle are none."""
        block, text = _begun(part), part.text
        if part.call is not None:
            return {**block, "input": json_object(text or "{}") or {}}
        if part.kind == "reasoning":
            return {**block, "thinking": "" if self._seal else text, "signature": self._signature(text)}
        return {**block, "text": text}

    def _signature(self, thinking: str) -> str:
        return self._seal.seal(thinking) if self._seal else signature(thinking)


def signature(thinking: str) -> str:
    """A digest of the thinking, which tells whether a block is as it was. Nothing is refused for it."""
    return b64encode(sha256(thinking.encode()).digest()).decode()


def _begun(part: Part) -> dict[str, Any]:
    """A block as it begins."""
    if part.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    if part.call is not None:
        return {"type": "tool_use", "id": part.call.id, "name": part.call.name, "input": {}}
    return {"type": "text", "text": ""}


def _stop(end: Finished) -> tuple[str, str | None]:
    """Why the message ended, and the stop sequence that ended it."""
    sequence = end.stopped_by if isinstance(end.stopped_by, str) else None
    if end.reason == "length":
        return "max_tokens", sequence
    if sequence is not None:
        return "stop_sequence", sequence
    return "tool_use" if end.calls else "end_turn", None


def _usage(usage: UsageCounter) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the other input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
