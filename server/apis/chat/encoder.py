"""Chat completions: a reply as bytes. Streams are composed by hand, since this is the path of every token."""

from collections.abc import Sequence
from typing import Any

import orjson

from controllers.generation.events import Decision, Event, Finished, Progress, Working
from models.engines.base import PositionLogprobs, Tokenizer
from models.formats.chunks import CallPart, Chunk
from server.apis.chat.schema import ChatRequest
from server.apis.shared.custom_calls import CustomInput, input_of
from server.apis.shared.generation import Generation
from server.apis.shared.reply import Choice, ReplyEncoder, decision_headers, progress_record
from server.apis.shared.sampling_fields import StreamOptions
from server.edges.sse import DONE


class ChatEncoder(ReplyEncoder):
    """One reply. The first event of a streamed choice holds role, decision and first text together.

    Reasoning text stands in `reasoning` and in `reasoning_content`, the same string; on other events both keys are
    absent, never null (some clients let a null hide the text of the other key).
    """

    def __init__(self, generation: Generation, body: ChatRequest) -> None:
        super().__init__(generation.request.n, generation.hidden, generation.observer.usage)
        self._generation = generation
        self._hidden = generation.hidden
        self._options = body.stream_options or StreamOptions()
        self._token_ids = bool(body.return_token_ids)
        self._logprobs = bool(body.logprobs)
        self._tokenizer = generation.route.engine.tokenizer
        head = {"id": generation.reply_id, "object": "chat.completion.chunk", "created": generation.created}
        self._head = b"data: " + orjson.dumps({**head, "model": generation.route.name})[:-1]
        self._choice = self._head + b',"choices":[{"index":'
        self._custom = generation.request.answer.custom
        self._inputs: dict[tuple[int, int], CustomInput] = {}  # of calls of custom tools, by choice and number
        self._waiting: dict[int, bytes] = {}  # first events of choices that have decided and not yet spoken

    def frame(self, index: int, event: Event) -> bytes:
        if isinstance(event, Chunk):
            frame = self._chunk(index, event)
            if not frame and event.kind not in self._hidden:
                return b""
        elif isinstance(event, Decision):
            self.headers.update(decision_headers(event))
            self._waiting[index] = self._first(index, event)
            return b""
        elif isinstance(event, Finished):
            frame = self._last(index, event)
        else:
            frame = self._progress(index, event)
            if isinstance(event, Working):
                return frame
        # behind hidden thinking the client is told that there is thinking, though not what
        return self._waiting.pop(index) + frame if index in self._waiting else frame

    def end(self) -> bytes:
        if not self._options.include_usage:
            return DONE
        return self._head + b',"choices":[],"usage":' + orjson.dumps(self.usage.usage()) + b"}\n\n" + DONE

    def whole(self) -> dict[str, Any]:
        generation, first = self._generation, self.choices[0].end
        reply = {
            "id": generation.reply_id,
            "object": "chat.completion",
            "created": generation.created,
            "model": generation.route.name,
            "choices": [self._whole_choice(i, choice) for i, choice in enumerate(self.choices)],
            "usage": self.usage.usage(),
            "reasond": first.record,
        }
        return {**reply, "prompt_token_ids": list(first.decision.prompt)} if self._token_ids else reply

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        items = logprob_items(choice.logprobs, self._tokenizer) if self._logprobs else None
        told = {
            "index": index,
            "message": self._message(choice),
            "logprobs": {"content": items} if items else None,
            "finish_reason": finish_reason(choice.end),
            "stop_reason": stop_reason(choice.end),
            "reasond": choice.end.record,
        }
        if self._token_ids:
            told |= {"token_ids": choice.token_ids, "forced": choice.forced}
            if self._generation.route.target:
                told["target"] = choice.target
        return told

    def _message(self, choice: Choice) -> dict[str, Any]:
        content, reasoning = choice.text("answer"), choice.text("reasoning")
        calls = [self._whole_call(part.call, part.text) for part in choice.parts if part.call is not None]
        message: dict[str, Any] = {"role": "assistant", "content": None if calls and not content else content}
        if reasoning:
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        if calls:
            message["tool_calls"] = calls
        return message

    def _whole_call(self, call: CallPart, arguments: str) -> dict[str, Any]:
        custom = call.name in self._custom
        return tool_call(call, input_of(arguments) if custom else arguments, custom)

    def _first(self, index: int, decision: Decision) -> bytes:
        """The role, and the decision record as far as it is known."""
        frame = self._choice + (
            b'%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' % index
        )
        if self._token_ids:
            frame += b',"prompt_token_ids":' + orjson.dumps(list(decision.prompt))
        return frame + b',"reasond":' + orjson.dumps(decision.record()) + b"}\n\n"

    def _chunk(self, index: int, chunk: Chunk) -> bytes:
        if chunk.kind in self._hidden:
            delta = b'%d,"delta":{},"logprobs":null' % index
            return self._closed(delta, chunk) if self._token_ids else b""
        if not (chunk.text or chunk.call or chunk.logprobs or chunk.forced or self._token_ids):
            return b""
        text = orjson.dumps(chunk.text)
        if chunk.kind == "reasoning":
            delta = b'%d,"delta":{"reasoning":%b,"reasoning_content":%b}' % (index, text, text)
        elif chunk.call is not None:
            delta = b'%d,"delta":{"tool_calls":[%b]}' % (index, orjson.dumps(self._call(index, chunk.call, chunk.text)))
        else:
            delta = b'%d,"delta":{"content":%b}' % (index, text)
        positions = (chunk.token_ids if self._logprobs else None) if chunk.forced else chunk.logprobs
        if positions is None:
            return self._closed(delta + b',"logprobs":null', chunk)
        logprobs = orjson.dumps({"content": logprob_items(positions, self._tokenizer)})
        return self._closed(delta + b',"logprobs":' + logprobs, chunk)

    def _closed(self, delta: bytes, chunk: Chunk) -> bytes:
        """The event of a chunk, with the marks of what was not sampled from the route's own model."""
        frame = self._choice + delta + b',"finish_reason":null'
        if chunk.forced:
            frame += b',"forced":true'
        if chunk.target:
            frame += b',"target":true'
        if self._token_ids:
            frame += b',"token_ids":' + orjson.dumps(chunk.token_ids)
        if self._options.continuous_usage_stats:
            return frame + b'}],"usage":' + orjson.dumps(self.usage.usage()) + b"}\n\n"
        return frame + b"}]}\n\n"

    def _progress(self, index: int, event: Progress | Working) -> bytes:
        """The decision record as it stands; no text."""
        return self._choice + b'%d,"delta":{},"logprobs":null,"finish_reason":null}],"reasond":%b}\n\n' % (
            index,
            orjson.dumps(progress_record(event)),
        )

    def _call(self, index: int, call: CallPart, text: str) -> dict[str, Any]:
        """A call, or a further piece of it."""
        place = index, call.number
        if call.name in self._custom:
            self._inputs[place] = CustomInput()
        custom = self._inputs.get(place)
        if custom is not None:
            text = custom.feed(text)
        return {"index": call.number, **tool_call(call, text, custom is not None)}

    def _last(self, index: int, finished: Finished) -> bytes:
        rests = {number: custom.end() for (of, number), custom in self._inputs.items() if of == index}
        calls = [{"index": number, "custom": {"input": rest}} for number, rest in rests.items() if rest]
        end: dict[str, Any] = {
            "delta": {"tool_calls": calls} if calls else {},
            "logprobs": None,
            "finish_reason": finish_reason(finished),
            "stop_reason": stop_reason(finished),
        }
        choice = b"%d," % index + orjson.dumps(end)[1:-1] + b"}]"
        return self._choice + choice + b',"reasond":' + orjson.dumps(finished.record) + b"}\n\n"


def tool_call(call: CallPart, text: str, custom: bool) -> dict[str, Any]:
    """A call, or a further piece of its arguments, as OpenAI's API writes it: of a custom tool, of its input."""
    kind, field = ("custom", "input") if custom else ("function", "arguments")
    if call.name is None:
        return {kind: {field: text}}
    return {"id": call.id, "type": kind, kind: {"name": call.name, field: text}}


def finish_reason(finished: Finished) -> str:
    """OpenAI's: a reply that ended by itself with calls in it waits for their results."""
    return "tool_calls" if finished.calls and finished.reason == "stop" else finished.reason


def stop_reason(finished: Finished) -> str | int | None:
    """vLLM's: the stop string or id that ended the reply. The record tells a cancelled one from a stop string."""
    return "cancelled" if finished.cancelled else finished.stopped_by


def logprob_items(positions: Sequence[PositionLogprobs | int], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """OpenAI's `logprobs.content`: one item for each token, in order. A forced token is given by its id alone."""

    def item(token_id: int, logprob: float | None) -> dict[str, Any]:
        token = tokenizer.token_text(token_id)
        known = None if logprob is None else max(logprob, -9999.0)
        return {"token": token, "logprob": known, "bytes": list(token.encode())}

    return [
        {**item(at, None), "top_logprobs": [], "forced": True}
        if isinstance(at, int)
        else {
            **item(at.sampled.token_id, at.sampled.logprob),
            "top_logprobs": [item(top.token_id, top.logprob) for top in at.top],
        }
        for at in positions
    ]
