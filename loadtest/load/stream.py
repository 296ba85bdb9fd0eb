"""From raw bytes to a record, after the run: server-sent events or one JSON body, of any OpenAI-compatible server.

Reasoning is read from `reasoning` or `reasoning_content`, the answer from `content`, tool calls or `text`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from loadtest.records import HttpExchange, LoadRequest, OutputEvent, OutputKind, RequestRecord

Json = Mapping[str, Any]


def record(request: LoadRequest, scheduled_ns: int, exchange: HttpExchange) -> RequestRecord:
    """Reads what the exchange kept. Never raises: a body that cannot be read is an error kind of its own."""
    reply = _ReplyReader()
    try:
        reply.read(exchange, request.stream)
    except (AttributeError, TypeError, ValueError) as unreadable:  # not JSON, or JSON of another shape
        reply.fail("unreadable", f"{type(unreadable).__name__}: {unreadable}")
    error, detail = _verdict(exchange, reply)
    usage = reply.usage
    return RequestRecord(
        request=request,
        scheduled_ns=scheduled_ns,
        start_ns=exchange.start_ns,
        sent_ns=exchange.sent_ns,
        first_byte_ns=exchange.first_byte_ns,
        end_ns=exchange.end_ns,
        status=exchange.status,
        error=error,
        error_detail=detail[:500],
        events=tuple(reply.events),
        exact_tokens=reply.exact_tokens,
        prompt_tokens=usage.get("prompt_tokens"),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        reasoning_tokens=_reasoning_tokens(usage),
        finish_reason=reply.finish_reason,
        reasoning="".join(reply.reasoning),
        answer="".join(reply.answer),
        decision=reply.decision,
    )


def _reasoning_tokens(usage: Json) -> int | None:
    details = usage.get("completion_tokens_details") or usage
    count = details.get("reasoning_tokens")
    return count if isinstance(count, int) else None


def _verdict(exchange: HttpExchange, reply: "_ReplyReader") -> tuple[str | None, str]:
    whole = reply.done and exchange.error == "disconnect"  # a body that ends with the connection
    if exchange.error is not None and not whole:
        return exchange.error, exchange.detail
    if exchange.status != 200:
        return f"http_{exchange.status}", b"".join(exchange.pieces).decode(errors="replace")
    if reply.error is not None:
        return reply.error, reply.error_detail
    return (None, "") if reply.finish_reason else ("truncated", "the reply ended without a finish reason")


@dataclass(slots=True)
class _ReplyReader:
    """What the events said, as they are read one after another."""

    events: list[OutputEvent] = field(default_factory=list)
    exact_tokens: bool = False
    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    error_detail: str = ""

    def fail(self, kind: str, detail: str) -> None:
        self.error, self.error_detail = kind, detail

    def read(self, exchange: HttpExchange, stream: bool) -> None:
        if exchange.status not in (200, None):
            return
        if not stream:
            if exchange.error is None:
                self._body(orjson.loads(b"".join(exchange.pieces)))
            return
        for at_ns, data in events(exchange.times, exchange.pieces):
            if data == b"[DONE]":
                self.done = True
            else:
                self._chunk(at_ns, orjson.loads(data))

    def _body(self, body: Json) -> None:
        self._ends(body)
        for choice in body.get("choices", ()):
            message = choice.get("message") or choice
            self._text(message, first=not choice.get("index"))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _chunk(self, at_ns: int, chunk: Json) -> None:
        self._ends(chunk)
        for choice in chunk.get("choices", ()):
            kinds = self._text(choice.get("delta") or choice, first=not choice.get("index"))
            self._count(at_ns, kinds, choice.get("token_ids"))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _ends(self, chunk: Json) -> None:
        if chunk.get("error"):
            self.fail("stream_error", orjson.dumps(chunk["error"]).decode())
        self.usage = chunk.get("usage") or self.usage
        if "reasond" in chunk:
            self.decision.update(chunk["reasond"] or {})

    def _text(self, delta: Json, first: bool) -> list[OutputKind]:
        """Keeps the first choice's text; tells which kinds of text were there."""
        kinds: list[OutputKind] = []
        reasoning = delta.get("reasoning") or delta.get("reasoning_content")
        answer = delta.get("content") or delta.get("text")
        if reasoning:
            kinds.append("reasoning")
            if first:
                self.reasoning.append(reasoning)
        if answer or delta.get("tool_calls"):
            kinds.append("answer")
            if first and answer:
                self.answer.append(answer)
        return kinds

    def _count(self, at_ns: int, kinds: list[OutputKind], token_ids: list[int] | None) -> None:
        self.exact_tokens = self.exact_tokens or token_ids is not None
        tokens = len(kinds) if token_ids is None else len(token_ids)
        if not kinds and tokens:
            kinds = ["silent"]
        for kind in kinds[1:]:  # one chunk with both: its last token is taken to be the answer's first
            self.events.append(OutputEvent(at_ns, kinds[0], tokens - 1))
            self.events.append(OutputEvent(at_ns, kind, 1))
        if len(kinds) == 1:
            self.events.append(OutputEvent(at_ns, kinds[0], tokens))


def events(times: list[int], pieces: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """The `data` of each server-sent event, with the time of the read that brought its line's end.

    Splits and joins at any byte; takes LF or CRLF; ignores comments and other fields. (The standard's events of
    several data lines do not occur here: every server writes its JSON on one line.)
    """
    rest = b""
    for at_ns, piece in zip(times, pieces, strict=True):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield at_ns, line[5:].strip()
    if rest.startswith(b"data:"):
        yield times[-1], rest[5:].strip()
