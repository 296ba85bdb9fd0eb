"""What clients, the metrics, the log and the traces are told of one request."""

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from starlette.requests import Request

from controllers.generation.events import Decision, Event, Finished
from controllers.judging.judge import Vote
from models.engines.base import EngineBusy
from models.formats.chunks import Chunk
from server.assemble import runtime_of
from server.edges.errors import api_error
from server.observability.metrics import AbortCause, Failure, Outcome, RouteMetrics

COUNTED_AT_ONCE = 16  # tokens: a counter costs too much to be asked for each


@dataclass(slots=True)
class UsageCounter:
    """Every token that the client is charged for, counted from token ids over all choices of one request: exact at any
    moment. The prompt is counted once; of a judge, once a vote. `votes` are those it was asked for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    votes: int = 0

    def judged(self, votes: Iterable[Vote]) -> None:
        for vote in votes:
            self.prompt_tokens += vote.prompt_tokens
            self.completion_tokens += vote.completion_tokens
            self.reasoning_tokens += vote.reasoning_tokens
            self.votes += not vote.cached

    def usage(self, *, reasoning: bool = True) -> dict[str, Any]:
        """As OpenAI's chat API writes it, and without `reasoning` its completions API."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return {**usage, "prompt_tokens_details": {"cached_tokens": self.cached_tokens}}


class RequestObserver:
    """Counts one request's events into its usage and its route's metrics, from entering the context to leaving it. The
    request waits until its first token, and runs from then on.

    `cut` is set when the server ends what its drain left over: it tells that abort from a client's.
    """

    def __init__(self, route: RouteMetrics, cut: asyncio.Event) -> None:
        self.usage = UsageCounter()
        self._route = route
        self._cut = cut
        self._began = time.perf_counter()
        self._answered: dict[int, float] = {}  # the choices whose answer has begun, and after how many seconds
        self._first_token: float | None = None
        self._first_answer: float | None = None
        self._decision: Decision | None = None
        self._ends: list[Finished] = []
        self._running: dict[int, Decision] = {}  # of the choices that have decided and not ended
        self._reported = (0, 0)  # tokens of thoughts and of answers that the metrics have counted
        self._next_report = COUNTED_AT_ONCE
        self._outcome: Outcome | AbortCause | None = None

    def __enter__(self) -> "RequestObserver":
        self._route.waiting.inc()
        return self

    def saw(self, index: int, event: Event) -> None:
        if isinstance(event, Chunk):
            usage, count = self.usage, len(event.token_ids)
            usage.completion_tokens += count
            if event.kind == "reasoning":
                usage.reasoning_tokens += count
            if usage.completion_tokens >= self._next_report:
                self._report()
            if index not in self._answered and (event.text or event.call):
                self.spoke()
                if event.kind in ("answer", "tool"):
                    self._answers(index)
        elif isinstance(event, Decision):
            self._route.decided(event)
            self._decision = self._decision or event
            self._running[index] = event
            self._runs(event, 1)
            self.usage.prompt_tokens = len(event.prompt)
        elif isinstance(event, Finished):
            self._ends.append(event)
            self._runs(self._running.pop(index), -1)
            self._route.replied(event, empty=index not in self._answered)
            if (deadline := event.more.get("deadline")) is not None and not event.cancelled:
                began = self._answered.get(index, math.inf)
                self._route.deadline(met=began <= deadline["seconds"])
            self.usage.cached_tokens = max(self.usage.cached_tokens, event.cached_tokens)

    def _runs(self, decision: Decision, replies: Literal[1, -1]) -> None:
        budgeted = decision.budget is not None and decision.budget.enforced is not None
        self._route.runs(decision.mode, replies, budgeted=budgeted)

    def _report(self) -> None:
        """The tokens since the last report."""
        thought, answered = self._reported
        self._reported = (self.usage.reasoning_tokens, self.usage.completion_tokens - self.usage.reasoning_tokens)
        self._next_report = self.usage.completion_tokens + COUNTED_AT_ONCE
        self._route.tokens["reasoning"].inc(self._reported[0] - thought)
        self._route.tokens["answer"].inc(self._reported[1] - answered)

    def spoke(self) -> None:
        """There is text."""
        if self._first_token is None:
            self._first_token = time.perf_counter() - self._began
            self._route.waiting.dec()
            self._route.running.inc()
            self._route.first_token.observe(self._first_token)

    def _answers(self, index: int) -> None:
        seconds = self._answered[index] = time.perf_counter() - self._began
        self._route.first_answer.observe(seconds)
        if self._first_answer is None:
            self._first_answer = seconds

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._report()
        for decision in self._running.values():
            self._runs(decision, -1)
        (self._route.waiting if self._first_token is None else self._route.running).dec()
        if error is None or isinstance(error, Exception):
            outcome: Outcome = "ok" if error is None else failure(error)
            self._outcome = outcome
        else:  # cancelled, or closed where it stood
            cause: AbortCause = "shutdown" if self._cut.is_set() else "client"
            self._outcome, outcome = cause, "aborted"
            self._route.aborts[cause].inc()
        self._route.outcomes[outcome].inc()

    def fields(self) -> dict[str, Any]:
        """The request as log lines and spans tell it: the decision record (of the first choice to end), then counts
        over all choices. Holds no text of the conversation; the record's notes are left out, for they may quote it.
        """
        told = self._ends[0].record if self._ends else self._decision.record() if self._decision else {}
        fields: dict[str, Any] = {"route": self._route.name, "outcome": self._outcome, **told}
        fields.pop("notes", None)
        if self._decision is not None:
            fields["prompt_tokens"] = len(self._decision.prompt)
        if self._ends:
            fields["choices"] = len(self._ends)
            fields["completion_tokens"] = sum(end.completion_tokens for end in self._ends)
            fields["reasoning_tokens"] = sum(end.reasoning_tokens for end in self._ends)
            fields["answer_tokens"] = sum(end.answer_tokens for end in self._ends)
        for name, seconds in (("first_token_seconds", self._first_token), ("first_answer_seconds", self._first_answer)):
            if seconds is not None:
                fields[name] = round(seconds, 6)
        return fields


def watch(request: Request, route: str) -> RequestObserver:
    """The watch of a request to a route. Whoever observes requests finds it in the request's state."""
    runtime = runtime_of(request)
    watching = RequestObserver(runtime.metrics.routes[route], runtime.cut)
    request.scope["state"]["watch"] = watching
    return watching


def failure(error: Exception) -> Failure:
    """Whose fault it was."""
    if isinstance(error, EngineBusy):
        return "overloaded"
    return "refused" if api_error(error).status < 500 else "error"
