"""A message of Anthropic's API while it grows: its content blocks, and the events that tell of them."""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from controllers.generation.events import Decision, Event, Finished, Progress, Working
from models.formats.chunks import Chunk
from models.tool_calls.tools import json_object
from server.apis.shared.generation import Job
from server.apis.shared.usage import UsageCounter
from server.edges.errors import ApiError
from server.edges.sse import named_event

Block = dict[str, Any]


class MessageEncoder:
    """Takes the events of one reply in turn. `frames` gives what a stream sends for each; `body` is the message as it
    stands, which is all that a reply that is not streamed needs."""

    def __init__(self, job: Job, request_id: str, tally: UsageCounter) -> None:
        self._job = job
        self._request_id = request_id
        self._tally = tally
        self._open: Block | None = None
        self._arguments = ""
        self.body: dict[str, Any] = {
            "id": job.reply_id,
            "type": "message",
            "role": "assistant",
            "model": job.route.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(tally),
            "reasond": {},
        }

    def frames(self, event: Event) -> bytes:
        return b"".join(map(named_event, self.events(event)))

    def events(self, event: Event) -> Iterator[dict[str, Any]]:
        if isinstance(event, Decision):
            self.body |= {"usage": _usage(self._tally), "reasond": event.record()}
            yield {"type": "message_start", "message": self.body}
        elif isinstance(event, Progress | Working):
            told = {"progress": event.record} if isinstance(event, Working) else event.record()
            yield {"type": "ping", "reasond": told}
        elif isinstance(event, Chunk):
            if (event.text or event.call) and event.kind not in self._job.hidden:
                yield from self._chunk(event)
        else:
            yield from self._finished(event)

    def failed(self, error: ApiError) -> bytes:
        """The end of a stream that failed."""
        return b"event: error\ndata: " + error.anthropic_body(self._request_id) + b"\n\n"

    def _chunk(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        kind = {"reasoning": "thinking", "tool": "tool_use"}.get(chunk.kind, "text")
        begins = chunk.call is not None and chunk.call.name is not None
        if self._open is None or self._open["type"] != kind or begins:
            yield from self._close()
            self._open = _block(kind, chunk)
            self.body["content"].append(self._open)
            yield self._at("content_block_start", content_block=dict(self._open))
        if not chunk.text:
            return
        if kind == "tool_use":
            self._arguments += chunk.text
            delta = {"type": "input_json_delta", "partial_json": chunk.text}
        else:
            self._open[kind] += chunk.text
            delta = {"type": f"{kind}_delta", kind: chunk.text}
        yield self._at("content_block_delta", delta=delta)

    def _close(self) -> Iterator[dict[str, Any]]:
        block, self._open = self._open, None
        if block is None:
            return
        if block["type"] == "thinking":
            block["signature"] = signature(block["thinking"])
            delta = {"type": "signature_delta", "signature": block["signature"]}
            yield self._at("content_block_delta", delta=delta)
        elif block["type"] == "tool_use":
            block["input"] = json_object(self._arguments or "{}") or {}  # cut off in the middle of them: none
            self._arguments = ""
        yield self._at("content_block_stop")

    def _finished(self, end: Finished) -> Iterator[dict[str, Any]]:
        yield from self._close()
        sequence = end.stopped_by if isinstance(end.stopped_by, str) else None
        told = {"stop_reason": _stop_reason(end, sequence), "stop_sequence": sequence}
        usage = _usage(self._tally)
        self.body |= {**told, "usage": usage, "reasond": end.record}
        yield {"type": "message_delta", "delta": told, "usage": usage, "reasond": end.record}
        yield {"type": "message_stop"}

    def _at(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "index": len(self.body["content"]) - 1, **fields}


def signature(thinking: str) -> str:
    """A digest of the thinking, which tells whether a block is as it was. Nothing is refused for it."""
    return b64encode(sha256(thinking.encode()).digest()).decode()


def _block(kind: str, chunk: Chunk) -> Block:
    if kind == "thinking":
        return {"type": kind, "thinking": "", "signature": ""}
    if kind == "text":
        return {"type": kind, "text": "", "citations": None}
    call = chunk.call
    return {"type": kind, "id": call.id if call else None, "name": call.name if call else None, "input": {}}


def _stop_reason(end: Finished, sequence: str | None) -> str:
    if end.reason == "length":
        return "max_tokens"
    if sequence is not None:
        return "stop_sequence"
    return "tool_use" if end.calls else "end_turn"


def _usage(tally: UsageCounter) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the other input."""
    return {
        "input_tokens": tally.prompt_tokens - tally.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tally.cached_tokens,
        "output_tokens": tally.completion_tokens,
        "output_tokens_details": {"thinking_tokens": tally.reasoning_tokens},
    }
