"""A real server on the loopback, in a thread of this process, over a scripted engine; and recordings of its streams."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import orjson
import uvloop

from models.engines.scripted import Line, Script, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from server.serve import DrainingServer, build_server

ROOT = Path(__file__).parents[2]
SETTINGS = """
[server]
port = 0
drain_seconds = 1

[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.demo]
engine = "demo"
family = "lhrm"
budgets.reserve = 0

[routes.careful]
engine = "demo"
family = "lhrm"
think_threshold = 0.5
budgets.reserve = 0
"""
THOUGHT = "add 2 and 2. so 4"
ANSWER = "it is 4. yes"
THINKING = f"<think>{THOUGHT}</think>{ANSWER}"
DIRECT = f"<no_think>{ANSWER}</no_think>"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: where it is, and what is behind it."""

    url: str
    engine: ScriptedEngine

    def until_idle(self, seconds: float = 5.0) -> int:
        """What the engine still holds when it has had that long to let go."""
        deadline = time.monotonic() + seconds
        while self.engine.running() and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.engine.running()


@contextmanager
def served(
    tokenizer: HubTokenizer,
    script: Script | Sequence[Line],
    settings: str = SETTINGS,
    context_length: int = 512,
    **delays: float,
) -> Iterator[Served]:
    """A server over `script` until the block ends. `delays` are the engine's, in seconds; it stands for the first
    engine of `settings`, whatever kind that is."""
    config = parse_config(settings, ROOT)
    name = next(iter(config.engines))
    engine = ScriptedEngine(tokenizer, script, name=name, context_length=context_length, **delays)  # type: ignore[arg-type]
    server = build_server(config, create_app(config, {name: engine}))
    thread = Thread(target=_serve, args=(server,), name="server")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", engine)
    finally:
        server.should_exit = True
        thread.join()


def _serve(server: DrainingServer) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve())


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event: when it arrived, in seconds behind the request, and its JSON."""

    seconds: float
    data: dict[str, Any]

    @property
    def delta(self) -> dict[str, Any]:
        """Of the first choice; empty on an event without choices."""
        choices = self.data.get("choices")
        return choices[0].get("delta", {}) if choices else {}


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole stream as a client saw it."""

    status: int
    headers: httpx.Headers
    events: list[Event]
    done: bool

    def joined(self, key: str, index: int = 0) -> str:
        """The text under one key of the deltas of one choice."""
        choices = [choice for event in self.events for choice in event.data.get("choices", ())]
        return "".join(choice["delta"].get(key) or "" for choice in choices if choice["index"] == index)


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": "what is 2+2?"}], **fields}


def record(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Recording:
    """Sends `body` as a streaming request and keeps the events that come back. All else but comments is an error."""
    events: list[Event] = []
    done = False
    began = time.perf_counter()
    with httpx.stream("POST", url + path, json={**body, "stream": True}, timeout=30) as answer:
        for line in answer.iter_lines():
            if not line or line.startswith(":"):  # a sign of life
                continue
            field, _, value = line.partition(": ")
            assert field == "data" and not done, line
            if value == "[DONE]":
                done = True
            else:
                events.append(Event(time.perf_counter() - began, orjson.loads(value)))
    return Recording(answer.status_code, answer.headers, events, done)


def ask(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=30)


@dataclass
class Heard:
    """An answer as it came in: seconds behind the request, and bytes, of its headers and of every piece."""

    status: int
    headers: httpx.Headers
    times: list[float]
    text: str

    @property
    def longest_silence(self) -> float:
        return max(later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False))


def listen(url: str, path: str, body: dict[str, Any]) -> Heard:
    began = time.perf_counter()
    with httpx.stream("POST", url + path, json=body, timeout=120) as answer:
        times, pieces = [time.perf_counter() - began], []
        for piece in answer.iter_raw():
            times.append(time.perf_counter() - began)
            pieces.append(piece)
    return Heard(answer.status_code, answer.headers, times, b"".join(pieces).decode())
