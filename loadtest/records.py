"""What is asked, of whom, and what came back. Times: nanoseconds of `time.perf_counter_ns`, one clock per machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["reasoning", "answer", "silent"]


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its base URL (with or without `/v1`), the model or route to ask for, and the key, if it wants one."""

    url: str
    model: str
    key: str | None = None
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or f"{self.model} at {self.url}"


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `body` holds fields of the chat request beside `messages`, `model` and `stream`.

    `route` replaces the target's model. `answer` is what a right reply says; `variant` names the entry of the mix that
    this request was drawn for; `at` is the second of a trace at which it was sent.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    answer: str | None = None
    difficulty: float | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    route: str | None = None
    variant: str = ""
    stream: bool = True
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of output: when it was read, what it holds, and how many tokens that is.

    `silent` tokens carried no text. `tokens` is exact if the server sends `token_ids` (`Record.exact_tokens`), else 1.
    """

    at_ns: int
    kind: Kind
    tokens: int


@dataclass(frozen=True, slots=True)
class Record:
    """One request as it went.

    `scheduled_ns` is when the arrival plan wanted it, `start_ns` when the client took it up, `sent_ns` when it was
    written to an open connection. `error` is None or a kind: `connect`, `timeout`, `disconnect`, `http_<status>`,
    `stream_error` (an error event inside the stream), `truncated` (no finish reason came), `unreadable`.
    """

    request: Request
    scheduled_ns: int
    start_ns: int
    sent_ns: int | None
    first_byte_ns: int | None
    end_ns: int
    status: int | None = None
    error: str | None = None
    error_detail: str = ""
    events: tuple[Event, ...] = ()
    exact_tokens: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    reasoning: str = ""
    answer: str = ""
    decision: Mapping[str, Any] = field(default_factory=dict)

    def first_ns(self, kind: Kind | None = None) -> int | None:
        """When the first piece of this kind (None: of any kind) was read."""
        return next((event.at_ns for event in self.events if kind is None or event.kind == kind), None)

    @property
    def output_tokens(self) -> int | None:
        """As the server's usage says; without usage, as counted from the stream."""
        if self.completion_tokens is not None:
            return self.completion_tokens
        return sum(event.tokens for event in self.events) or None

    @property
    def thinking_tokens(self) -> int | None:
        """As the server's usage says; without it, as counted from the stream; None if there was no stream either."""
        if self.reasoning_tokens is not None:
            return self.reasoning_tokens
        return sum(event.tokens for event in self.events if event.kind == "reasoning") if self.events else None


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `cpu_share` is the client's own processor time over wall time while it ran (1.0: all of one core)."""

    target: Target
    arrivals: str
    rate: float | None
    concurrency: int | None
    records: tuple[Record, ...]
    started_at: float
    start_ns: int
    end_ns: int
    cpu_share: float
    processes: int = 1

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9
