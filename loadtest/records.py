"""What is asked, of whom, and what came back. Times: nanoseconds of `time.perf_counter_ns`, one clock per machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OutputKind = Literal["reasoning", "answer", "silent"]


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """A server: its base URL (with or without `/v1`), the model or route to ask for, and the key, if it wants one."""

    url: str
    model: str
    key: str | None = None
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or f"{self.model} at {self.url}"


@dataclass(frozen=True, slots=True)
class LoadRequest:
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
class ComparedSide:
    """What is asked of whom. `name` is what it is called in figures, and shorter than the target's label."""

    target: LoadTarget
    requests: Sequence[LoadRequest]
    name: str = ""


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """One piece of output: when it was read, what it holds, and how many tokens that is.

    `silent` tokens carried no text. `tokens` is exact if the server sends `token_ids`, else 1.
    """

    at_ns: int
    kind: OutputKind
    tokens: int


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as it went.

    `scheduled_ns` is when the arrival plan wanted it, `start_ns` when the client took it up, `sent_ns` when it was
    written to an open connection. `error` is None or a kind: `connect`, `timeout`, `disconnect`, `http_<status>`,
    `stream_error` (an error event inside the stream), `truncated` (no finish reason came), `unreadable`.
    """

    request: LoadRequest
    scheduled_ns: int
    start_ns: int
    sent_ns: int | None
    first_byte_ns: int | None
    end_ns: int
    status: int | None = None
    error: str | None = None
    error_detail: str = ""
    events: tuple[OutputEvent, ...] = ()
    exact_tokens: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    reasoning: str = ""
    answer: str = ""
    decision: Mapping[str, Any] = field(default_factory=dict)

    def first_ns(self, kind: OutputKind | None = None) -> int | None:
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
class RunResult:
    """One run. `cpu_share` is the client's own processor time over wall time while it ran (1.0: all of one core)."""

    target: LoadTarget
    arrivals: str
    rate: float | None
    concurrency: int | None
    records: tuple[RequestRecord, ...]
    started_at: float
    start_ns: int
    end_ns: int
    cpu_share: float
    processes: int = 1

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(slots=True)
class HttpExchange:
    """One request's response as it was read: `pieces[i]` came with a read at `times[i]`."""

    start_ns: int
    end_ns: int = 0
    sent_ns: int | None = None
    first_byte_ns: int | None = None
    status: int | None = None
    error: str | None = None
    detail: str = ""
    times: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


@dataclass(slots=True)
class RunProgress:
    """What the progress display reads while a run goes on."""

    planned: int = 0
    started: int = 0
    finished: int = 0
    failed: int = 0
    latencies_ns: list[int] = field(default_factory=list)

    def become(self, parts: Sequence["RunProgress"]) -> None:
        """Takes on the sums of the parts."""
        for name in ("planned", "started", "finished", "failed"):
            setattr(self, name, sum(getattr(part, name) for part in parts))
        self.latencies_ns = [latency for part in parts for latency in part.latencies_ns]
