"""A response of /v1/responses: its output items, and the events that tell of them."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from controllers.generation.events import Decision, Event, Finished
from models.engines.base import PositionLogprobs
from models.formats.chunks import Chunk
from server.apis.chat.encoder import logprob_items
from server.apis.responses.schema import ResponsesRequest
from server.apis.shared.custom_calls import CustomInput, input_of
from server.apis.shared.generation import Generation
from server.apis.shared.reply import Part, ReplyEncoder, decision_headers
from server.edges.errors import ApiError
from server.edges.sse import named_event
from server.observability.request_observer import UsageCounter

IDS = {"reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc", "message": "msg"}
TEXTS = {"reasoning": "reasoning_text", "message": "output_text"}
Item = dict[str, Any]


class ResponseEncoder(ReplyEncoder):
    """One reply. `response` is the response object without its output.

    Who asks for a summary of the thinking gets the thinking itself in its place, too: most clients show nothing else.
    """

    def __init__(self, generation: Generation, body: ResponsesRequest) -> None:
        super().__init__(1, generation.hidden, generation.observer.usage)
        self._tokenizer = generation.route.engine.tokenizer
        self._logprobs = body.wants_logprobs
        self._interrupt = generation.interrupt
        self._sequence = -1
        self._open: Part | None = None
        self._index = -1  # of the open item
        self._input = CustomInput()  # of the open item, if it calls a custom tool
        self._answer = generation.request.answer
        self.response = _created(generation, body)
        self._summary = self.response["reasoning"]["summary"] is not None

    def add(self, index: int, event: Event) -> None:
        super().add(index, event)
        self._saw(event)

    def frame(self, index: int, event: Event) -> bytes:
        return b"".join(map(named_event, self._events(event)))

    def failed(self, error: ApiError) -> bytes:
        """The error, and the response as it then stands."""
        self.fail(error)
        told = self._event("error", code=error.code, message=error.message, param=error.param)
        return named_event(told) + named_event(self._event("response.failed", response=self.whole()))

    def fail(self, error: ApiError) -> None:
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        self.response |= {"status": "failed", "error": {"code": code, "message": error.message}}

    def whole(self) -> dict[str, Any]:
        """The response as it stands."""
        status, parts = self.response["status"], self.choices[0].parts
        if status in ("queued", "in_progress") and self._interrupt.cancelled:
            status = "cancelled"
        output = [self._item(part, self._status(part)) for part in parts]
        return {**self.response, "status": status, "output": output}

    def _status(self, part: Part) -> str:
        """All items but the last are complete."""
        choice = self.choices[0]
        if part is choice.parts[-1] and choice.finished is None:
            return "in_progress"
        cut = part is choice.parts[-1] and choice.end.reason == "length"
        return "incomplete" if cut else "completed"

    def _saw(self, event: Event) -> None:
        """What an event changes of the response beside its output."""
        if isinstance(event, Chunk):
            return
        self.response["reasond"] = self.choices[0].record
        if isinstance(event, Finished):
            cut = event.reason == "length" and not event.cancelled
            self.response |= {
                "status": "cancelled" if event.cancelled else "incomplete" if cut else "completed",
                "usage": _usage(self.usage),
                "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            }
        elif isinstance(event, Decision):
            self.headers.update(decision_headers(event))

    def _events(self, event: Event) -> Iterator[dict[str, Any]]:
        part = self.choices[0].add(event)
        if isinstance(event, Chunk):
            if part is not None:
                yield from self._chunk(part, event)
            return
        self._saw(event)
        if isinstance(event, Finished):
            yield from self._close("incomplete" if event.reason == "length" else "completed")
            kind = "completed" if self.response["status"] == "completed" else "incomplete"
            yield self._event(f"response.{kind}", response=self.whole())
        else:  # the output so far is left out: it has been told
            if self._sequence < 0:
                yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)

    def _chunk(self, part: Part, chunk: Chunk) -> Iterator[dict[str, Any]]:
        if part is not self._open:
            yield from self._close("completed")
            yield from self._begin(part)
        if not chunk.text:
            return
        if self._kind(part) == "custom_tool_call":
            if text := self._input.feed(chunk.text):
                yield self._at("response.custom_tool_call_input.delta", part.id, delta=text)
        elif part.kind == "tool":
            yield self._at("response.function_call_arguments.delta", part.id, delta=chunk.text)
        elif part.kind == "reasoning":
            yield self._at("response.reasoning_text.delta", part.id, content_index=0, delta=chunk.text)
            if self._summary:
                yield self._at("response.reasoning_summary_text.delta", part.id, summary_index=0, delta=chunk.text)
        else:
            logprobs = self._items(chunk.logprobs or ())
            yield self._at("response.output_text.delta", part.id, content_index=0, delta=chunk.text, logprobs=logprobs)

    def _begin(self, part: Part) -> Iterator[dict[str, Any]]:
        self._open, self._input = part, CustomInput()
        self._index += 1
        item = self._item(part, "in_progress", text="")
        empty: Item = {name: [] for name in ("summary", "content") if name in item}
        yield self._event("response.output_item.added", output_index=self._index, item=item | empty)
        for content in item.get("content", ()):
            yield self._at("response.content_part.added", part.id, content_index=0, part=content)
        for summary in item.get("summary", ()):
            yield self._at("response.reasoning_summary_part.added", part.id, summary_index=0, part=summary)

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        part, self._open = self._open, None
        if part is None:
            return
        item = self._item(part, status)
        if item["type"] == "custom_tool_call":
            if rest := self._input.end():
                yield self._at("response.custom_tool_call_input.delta", part.id, delta=rest)
            yield self._at("response.custom_tool_call_input.done", part.id, input=item["input"])
        elif part.kind == "tool":
            told = {"name": item["name"], "arguments": item["arguments"]}
            yield self._at("response.function_call_arguments.done", part.id, **told)
        else:
            content = item["content"][0]
            done = {name: content[name] for name in ("text", "logprobs") if name in content}
            yield self._at(f"response.{content['type']}.done", part.id, content_index=0, **done)
            yield self._at("response.content_part.done", part.id, content_index=0, part=content)
        for summary in item.get("summary", ()):
            text = summary["text"]
            yield self._at("response.reasoning_summary_text.done", part.id, summary_index=0, text=text)
            yield self._at("response.reasoning_summary_part.done", part.id, summary_index=0, part=summary)
        yield self._event("response.output_item.done", output_index=self._index, item=item)

    def _kind(self, part: Part) -> str:
        if part.call is not None:
            return "custom_tool_call" if part.call.name in self._answer.custom else "function_call"
        return "reasoning" if part.kind == "reasoning" else "message"

    def _item(self, part: Part, status: str, text: str | None = None) -> dict[str, Any]:
        """An output item, or the beginning of one that has no text yet."""
        kind = self._kind(part)
        part.id = part.id or f"{IDS[kind]}_{uuid4().hex}"
        told = part.text if text is None else text
        head = {"id": part.id, "type": kind}
        if part.call is not None:
            name = part.call.name or ""
            namespace, own = self._answer.namespaces.get(name, (None, name))
            sent = {"input": input_of(told)} if kind == "custom_tool_call" else {"arguments": told}
            named = {"call_id": part.call.id, "name": own, **({"namespace": namespace} if namespace else {})}
            return {**head, **named, **sent, "status": status}
        content: dict[str, Any] = {"type": TEXTS[kind], "text": told}
        if kind == "reasoning":
            summary = [{"type": "summary_text", "text": told}] if self._summary else []
            return {**head, "summary": summary, "content": [content], "status": status}
        content |= {"annotations": [], "logprobs": self._items(part.logprobs if text is None else ())}
        return {**head, "role": "assistant", "content": [content], "status": status}

    def _items(self, logprobs: Sequence[PositionLogprobs]) -> list[dict[str, Any]]:
        """Log-probabilities where they were asked for; a token that the server wrote has none to tell."""
        return logprob_items(logprobs, self._tokenizer) if self._logprobs else []

    def _at(self, kind: str, item_id: str, **fields: Any) -> dict[str, Any]:
        return self._event(kind, item_id=item_id, output_index=self._index, **fields)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, **fields, "sequence_number": self._sequence}


def _created(generation: Generation, request: ResponsesRequest) -> dict[str, Any]:
    """The response object as it is before there is any output: what was asked for, and what holds for it."""
    asked = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "id": generation.reply_id,
        "object": "response",
        "created_at": generation.created,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": generation.route.name,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": _reasoning(asked.get("reasoning")),
        "store": request.store is not False,
        "temperature": generation.sampling.temperature,
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": _tools(asked.get("tools") or ()),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": generation.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "reasond": {},
    }


def _reasoning(asked: Any) -> dict[str, Any]:
    told = asked if isinstance(asked, dict) else {}
    return {name: value if isinstance(value := told.get(name), str) else None for name in ("effort", "summary")}


def _tools(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = {"description": None, "parameters": None, "strict": True}
    return [{**shown, **tool} if tool["type"] == "function" else tool for tool in asked]


def _usage(usage: UsageCounter) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
