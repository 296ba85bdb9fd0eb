"""A bare server that writes down when it sent: the truth that the load tester's figures are held to.

`python -m tests.loadtest.emitter` prints its port and serves until its standard input closes. A request's field `emit`
says what to send: `id`; `first`, `gap` (seconds), `jitter` (of a gap, as a share); `reasoning`, `answer` (events) and
`tokens` (in each event); `status`; `record` (the decision record); `drop` (the event before which to hang up); `text`.
`GET /log` gives and forgets the log: id -> `[received_ns, [sent_ns, ...]]`, taken immediately before each write, from
the monotonic clock that a client on this machine reads too.
"""

import asyncio
import heapq
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

Step = Iterator[float]
_CHUNK = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 17, "model": "emitter"}
_HEAD = b"HTTP/1.1 %d OK\r\ncontent-type: %s\r\n"


def event(delta: dict[str, Any] | None, more: dict[str, Any] | None = None, **choice: Any) -> bytes:
    """One SSE event in one HTTP chunk, as vLLM spells it; `delta` None leaves `choices` empty."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} | choice]
    return http_chunk(b"data: " + json.dumps(_CHUNK | {"choices": choices} | (more or {})).encode() + b"\n\n")


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(status: int, body: object) -> bytes:
    data = json.dumps(body).encode()
    return _HEAD % (status, b"application/json") + b"content-length: %d\r\n\r\n%s" % (len(data), data)


class Pump:
    """Runs every stream's steps from one heap, so that a thousand streams cost one timer."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Step]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, due: float, step: Step) -> None:
        heapq.heappush(self._heap, (due, next(self._order), step))
        if self._heap[0][2] is step:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            delay = max(0.0, self._heap[0][0] - time.perf_counter())
            self._timer = asyncio.get_running_loop().call_later(delay, self._run)

    def _run(self) -> None:
        for _ in range(256):
            if not self._heap or self._heap[0][0] > time.perf_counter():
                break
            due, _, step = heapq.heappop(self._heap)
            delay = next(step, None)
            if delay is not None:
                heapq.heappush(self._heap, (due + delay, next(self._order), step))
        self._arm()


class Emitter(asyncio.Protocol):
    def __init__(self, pump: Pump, log: dict[str, Any]) -> None:
        self._pump, self._log, self._buffer = pump, log, b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = time.perf_counter_ns()
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if not found or len(rest) < length:
            return
        self._buffer = rest[length:]
        if head.startswith(b"GET"):
            self._transport.write(whole(200, self._log))
            self._log.clear()
        else:
            self._answer(json.loads(rest[:length]), received)

    def _answer(self, body: dict[str, Any], received: int) -> None:
        plan = body.get("emit") or {"id": str(received), "reasoning": 5, "answer": 1}
        entry = self._log[plan["id"]] = (received, [])
        if plan.get("status", 200) != 200:
            self._transport.write(whole(plan["status"], {"error": {"message": "as asked", "type": "emitted"}}))
            return
        steps = self._stream(plan, entry[1]) if body.get("stream") else self._reply(plan, entry[1])
        self._pump.add(received / 1e9 + plan.get("first", 0.0), steps)

    def _reply(self, plan: dict[str, Any], sent: list[int]) -> Step:
        message = {"role": "assistant", "content": plan.get("text", "4 ") * plan["answer"], "reasoning": "r"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"choices": [choice], "usage": usage(plan), "reasond": plan.get("record")}
        sent.append(time.perf_counter_ns())
        self._transport.write(whole(200, body))
        yield from ()

    def _stream(self, plan: dict[str, Any], sent: list[int]) -> Step:
        write, draw = self._transport.write, random.Random(plan["id"])
        head = _HEAD % (200, b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
        write(head + event({"role": "assistant"}))
        tokens = list(range(plan.get("tokens", 1)))
        thought = event({"reasoning": "r ", "reasoning_content": "r "}, token_ids=tokens)
        answer = event({"content": plan.get("text", "4 ")}, token_ids=tokens)
        for number, line in enumerate([thought] * plan["reasoning"] + [answer] * plan["answer"]):
            if number:
                yield plan.get("gap", 0.0) * (1 + plan.get("jitter", 0.0) * draw.uniform(-1, 1))
            if number == plan.get("drop"):
                self._transport.close()
                return
            sent.append(time.perf_counter_ns())
            write(line)
        record = {"reasond": plan["record"]} if "record" in plan else {}
        write(event({}, finish_reason="stop") + event(None, {"usage": usage(plan)} | record))
        write(http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def usage(plan: dict[str, Any]) -> dict[str, Any]:
    per_event = plan.get("tokens", 1)
    thought, answer = plan["reasoning"] * per_event, plan["answer"] * per_event
    details = {"reasoning_tokens": thought}
    return {"prompt_tokens": 7, "completion_tokens": thought + answer, "completion_tokens_details": details}


async def serve() -> None:
    loop, pump, log = asyncio.get_running_loop(), Pump(), dict[str, Any]()
    server = await loop.create_server(lambda: Emitter(pump, log), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
