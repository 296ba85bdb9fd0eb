"""Chat completions as bytes: one SSE event for each chunk, composed by hand because this is the path of every token."""

from collections.abc import Sequence
from typing import Any

import orjson

from controllers.generation.events import Decision, Finished, Progress, Working
from controllers.route import Route
from models.engines.base import PositionLogprobs, Tokenizer
from models.formats.chunks import CallPart, Chunk


class ChatEncoder:
    """Frames of one streamed reply. `index` arguments name the choice.

    Reasoning text stands in `reasoning` and in `reasoning_content`, the same string; on other events both keys are
    absent, never null (some clients let a null hide the text of the other key).
    """

    def __init__(self, reply_id: str, created: int, route: Route, *, token_ids: bool, logprobs: bool) -> None:
        head = {"id": reply_id, "object": "chat.completion.chunk", "created": created, "model": route.name}
        self._head = b"data: " + orjson.dumps(head)[:-1]
        self._choice = self._head + b',"choices":[{"index":'
        self._token_ids = token_ids
        self._logprobs = logprobs
        self._tokenizer = route.engine.tokenizer

    def first(self, index: int, decision: Decision) -> bytes:
        """The role, and the decision record as far as it is known."""
        frame = self._choice + (
            b'%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' % index
        )
        if self._token_ids:
            frame += b',"prompt_token_ids":' + orjson.dumps(list(decision.prompt))
        return frame + b',"reasond":' + orjson.dumps(decision.record()) + b"}\n\n"

    def chunk(self, index: int, chunk: Chunk, usage: dict[str, Any] | None = None) -> bytes:
        text = orjson.dumps(chunk.text)
        if chunk.kind == "reasoning":
            delta = b'%d,"delta":{"reasoning":%b,"reasoning_content":%b}' % (index, text, text)
        elif chunk.call is not None:
            call = {"index": chunk.call.number, **tool_call(chunk.call, chunk.text)}
            delta = b'%d,"delta":{"tool_calls":[%b]}' % (index, orjson.dumps(call))
        else:
            delta = b'%d,"delta":{"content":%b}' % (index, text)
        if chunk.forced:
            return self._forced(delta, chunk, usage)
        if chunk.logprobs is None:
            frame = self._choice + delta + b',"logprobs":null,"finish_reason":null'
        else:
            logprobs = orjson.dumps({"content": logprob_items(chunk.logprobs, self._tokenizer)})
            frame = self._choice + delta + b',"logprobs":' + logprobs + b',"finish_reason":null'
        return self._ended(frame, chunk, usage)

    def hidden(self, index: int, chunk: Chunk, usage: dict[str, Any] | None = None) -> bytes:
        """A chunk whose text is not for the client: its token ids, which were asked for, and nothing that spells it."""
        frame = self._choice + b'%d,"delta":{},"logprobs":null,"finish_reason":null' % index
        return self._ended(frame + b',"forced":true' if chunk.forced else frame, chunk, usage)

    def _forced(self, delta: bytes, chunk: Chunk, usage: dict[str, Any] | None) -> bytes:
        """What the server wrote itself: flagged, and without log-probabilities."""
        logprobs = {"content": logprob_items(chunk.token_ids, self._tokenizer)} if self._logprobs else None
        frame = self._choice + delta + b',"logprobs":' + orjson.dumps(logprobs) + b',"finish_reason":null'
        return self._ended(frame + b',"forced":true', chunk, usage)

    def _ended(self, frame: bytes, chunk: Chunk, usage: dict[str, Any] | None) -> bytes:
        if chunk.target:
            frame += b',"target":true'
        if self._token_ids:
            frame += b',"token_ids":' + orjson.dumps(chunk.token_ids)
        if usage is not None:
            return frame + b'}],"usage":' + orjson.dumps(usage) + b"}\n\n"
        return frame + b"}]}\n\n"

    def progress(self, index: int, progress: Progress) -> bytes:
        """The decision record as it stands; no text."""
        return self._choice + b'%d,"delta":{},"logprobs":null,"finish_reason":null}],"reasond":%b}\n\n' % (
            index,
            orjson.dumps(progress.record()),
        )

    def last(self, index: int, finished: Finished) -> bytes:
        end: dict[str, Any] = {
            "delta": {},
            "logprobs": None,
            "finish_reason": finish_reason(finished),
            "stop_reason": stop_reason(finished),
        }
        choice = b"%d," % index + orjson.dumps(end)[1:-1] + b"}]"
        return self._choice + choice + b',"reasond":' + orjson.dumps(finished.record) + b"}\n\n"

    def working(self, index: int, working: Working) -> bytes:
        """Progress before the reply: an empty delta, and what there is to tell under `reasond`."""
        choice = self._choice + b'%d,"delta":{},"logprobs":null,"finish_reason":null}]' % index
        return choice + b',"reasond":' + orjson.dumps({"progress": working.record}) + b"}\n\n"

    def usage(self, usage: dict[str, Any]) -> bytes:
        return self._head + b',"choices":[],"usage":' + orjson.dumps(usage) + b"}\n\n"


def tool_call(call: CallPart, arguments: str) -> dict[str, Any]:
    """A call, or a further piece of its arguments, as OpenAI's API writes it."""
    if call.name is None:
        return {"function": {"arguments": arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


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
