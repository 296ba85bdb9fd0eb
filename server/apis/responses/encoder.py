"""A response of /v1/responses while it grows: its output items, and the events that tell of them."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from controllers.generation.events import Decision, Event, Finished, Progress, Working
from models.formats.chunks import Chunk
from server.apis.chat.encoder import logprob_items
from server.apis.responses.schema import ResponsesRequest
from server.apis.shared.generation import Job
from server.apis.shared.usage import UsageCounter
from server.edges.errors import ApiError
from server.edges.sse import named_event

Item = dict[str, Any]


class ResponseEncoder:
    """Takes the events of one reply in turn. `frames` gives what a stream sends for each; `body` is the response object
    as it stands, which is all that a reply that is not streamed needs."""

    def __init__(self, job: Job, request: ResponsesRequest, tally: UsageCounter) -> None:
        self._job = job
        self._tally = tally
        self._sequence = -1
        self._logprobs = request.wants_logprobs
        self._open: Item | None = None
        self.end: Finished | None = None
        self.body = _created(job, request)

    def frames(self, event: Event) -> bytes:
        return b"".join(map(named_event, self.events(event)))

    def events(self, event: Event) -> Iterator[dict[str, Any]]:
        if isinstance(event, Decision | Progress | Working):
            told = {"progress": event.record} if isinstance(event, Working) else event.record()
            self.body["reasond"] = {**self.body["reasond"], **told}
            if self._sequence < 0:
                yield self._of_response("response.created")
            yield self._of_response("response.in_progress")
        elif isinstance(event, Chunk):
            if (event.text or event.call) and event.kind not in self._job.hidden:
                yield from self._chunk(event)
        else:
            yield from self._finished(event)

    def failed(self, error: ApiError) -> bytes:
        """The end of a stream that failed: the error, and the response as it then stands."""
        self.fail(error)
        told = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return named_event(self._numbered(told)) + named_event(self._of_response("response.failed"))

    def fail(self, error: ApiError) -> None:
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        self.body |= {"status": "failed", "error": {"code": code, "message": error.message}}

    def _chunk(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        kind = {"reasoning": "reasoning", "tool": "function_call"}.get(chunk.kind, "message")
        begins = chunk.call is not None and chunk.call.name is not None
        if self._open is None or self._open["type"] != kind or begins:
            yield from self._close("completed")
            yield from self._begin(kind, chunk)
        item = self._open
        if item is None or not chunk.text:
            return
        at = {"item_id": item["id"], "output_index": len(self.body["output"]) - 1}
        if kind == "function_call":
            item["arguments"] += chunk.text
            yield self._numbered({"type": "response.function_call_arguments.delta", **at, "delta": chunk.text})
            return
        part = item["content"][0]
        part["text"] += chunk.text
        delta = {**at, "content_index": 0, "delta": chunk.text}
        if kind == "message":
            delta["logprobs"] = self._items(chunk)
            part["logprobs"] += delta["logprobs"]
        name = "reasoning_text" if kind == "reasoning" else "output_text"
        yield self._numbered({"type": f"response.{name}.delta", **delta})

    def _items(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Log-probabilities where they were asked for; a token that the server wrote has none to tell."""
        if not self._logprobs or chunk.logprobs is None:
            return []
        return logprob_items(chunk.logprobs, self._job.route.engine.tokenizer)

    def _begin(self, kind: str, chunk: Chunk) -> Iterator[dict[str, Any]]:
        item = _item(kind, chunk)
        self._open = item
        self.body["output"].append(item)
        index = len(self.body["output"]) - 1
        shown = {**item, "content": []} if kind != "function_call" else dict(item)
        yield self._numbered({"type": "response.output_item.added", "output_index": index, "item": shown})
        if kind != "function_call":
            part = {"item_id": item["id"], "output_index": index, "content_index": 0, "part": dict(item["content"][0])}
            yield self._numbered({"type": "response.content_part.added", **part})

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        item, self._open = self._open, None
        if item is None:
            return
        item["status"] = status
        index = len(self.body["output"]) - 1
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "function_call":
            done = {"type": "response.function_call_arguments.done", **at, "name": item["name"]}
            yield self._numbered({**done, "arguments": item["arguments"]})
        else:
            part, at = item["content"][0], {**at, "content_index": 0}
            name = "reasoning_text" if item["type"] == "reasoning" else "output_text"
            done = {"type": f"response.{name}.done", **at, "text": part["text"]}
            if name == "output_text":
                done["logprobs"] = part["logprobs"]
            yield self._numbered(done)
            yield self._numbered({"type": "response.content_part.done", **at, "part": dict(part)})
        yield self._numbered({"type": "response.output_item.done", "output_index": index, "item": dict(item)})

    def _finished(self, end: Finished) -> Iterator[dict[str, Any]]:
        self.end = end
        status = "incomplete" if end.reason == "length" else "completed"
        yield from self._close(status)
        if end.cancelled:
            status = "cancelled"
        self.body |= {"status": status, "usage": _usage(self._tally), "reasond": end.record}
        if status == "incomplete":
            self.body["incomplete_details"] = {"reason": "max_output_tokens"}
        yield self._of_response("response.completed" if status == "completed" else "response.incomplete")

    def _of_response(self, kind: str) -> dict[str, Any]:
        return self._numbered({"type": kind, "response": self.body})

    def _numbered(self, event: dict[str, Any]) -> dict[str, Any]:
        self._sequence += 1
        return {**event, "sequence_number": self._sequence}


def _item(kind: str, chunk: Chunk) -> Item:
    unique = uuid4().hex
    if kind == "reasoning":
        content = [{"type": "reasoning_text", "text": ""}]
        return {"id": f"rs_{unique}", "type": kind, "summary": [], "content": content, "status": "in_progress"}
    if kind == "message":
        text = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return {"id": f"msg_{unique}", "type": kind, "role": "assistant", "content": [text], "status": "in_progress"}
    call = chunk.call
    named = {"call_id": call.id, "name": call.name} if call is not None else {}
    return {"id": f"fc_{unique}", "type": kind, **named, "arguments": "", "status": "in_progress"}


def _created(job: Job, request: ResponsesRequest) -> dict[str, Any]:
    """The response object as it is before there is any output: what was asked for, and what holds for it."""
    asked = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "id": job.reply_id,
        "object": "response",
        "created_at": job.created,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": job.route.name,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": _reasoning(asked.get("reasoning")),
        "store": request.store is not False,
        "temperature": job.sampling.temperature,
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": _tools(asked.get("tools") or ()),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "reasond": {},
    }


def _reasoning(asked: Any) -> dict[str, Any]:
    told = asked if isinstance(asked, dict) else {}
    return {name: value if isinstance(value := told.get(name), str) else None for name in ("effort", "summary")}


def _tools(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"description": None, "parameters": None, "strict": True, **tool} for tool in asked]


def _usage(tally: UsageCounter) -> dict[str, Any]:
    return {
        "input_tokens": tally.prompt_tokens,
        "input_tokens_details": {"cached_tokens": tally.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": tally.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": tally.reasoning_tokens},
        "total_tokens": tally.prompt_tokens + tally.completion_tokens,
    }
