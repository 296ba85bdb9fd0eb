"""What the metrics, the log and the traces see of one request."""

import asyncio
import time
from types import TracebackType
from typing import Any, Literal

from fastapi import Request

from controllers.generation.events import Decision, Event, Finished
from models.engines.base import EngineBusy
from models.formats.chunks import Chunk
from server.assemble import runtime_of
from server.edges.errors import api_error
from server.observability.metrics import AbortCause, Failure, Outcome, RouteMetrics, TokenKind

COUNTED_AT_ONCE = 16  # tokens: a counter costs too much to be asked for each


class RequestObserver:
    """Follows one request's events into its route's metrics, from entering the context to leaving it.

    `cut` is set when the server ends what its drain left over: it tells that abort from a client's.
    """

    __slots__ = (
        "_answered",
        "_began",
        "_cut",
        "_decision",
        "_ends",
        "_first_answer",
        "_first_token",
        "_outcome",
        "_request",
        "_route",
        "_running",
        "_uncounted",
    )

    def __init__(self, route: RouteMetrics, cut: asyncio.Event) -> None:
        self._route = route
        self._cut = cut
        self._began = time.perf_counter()
        self._answered: set[int] = set()  # the choices whose answer has begun
        self._first_token: float | None = None
        self._first_answer: float | None = None
        self._decision: Decision | None = None
        self._ends: list[Finished] = []
        self._running: dict[int, Decision] = {}  # of the choices that have decided and not ended
        self._uncounted: dict[TokenKind, int] = {"reasoning": 0, "answer": 0}
        self._outcome: Outcome | AbortCause | None = None

    def __enter__(self) -> "RequestObserver":
        self._request = self._route.started()
        return self

    def saw(self, index: int, event: Event) -> None:
        if isinstance(event, Chunk):
            self._count("reasoning" if event.kind == "reasoning" else "answer", len(event.token_ids))
            if (event.text or event.call) and index not in self._answered:
                self.spoke()
                if event.kind in ("answer", "tool"):
                    self._answered.add(index)
                    self._answers()
        elif isinstance(event, Decision):
            self._route.decided(event.mode, event.chosen_by)
            self._decision = self._decision or event
            self._running[index] = event
            self._runs(event, 1)
        elif isinstance(event, Finished):
            self._route.replied(event.reasoning_tokens, event.answer_tokens, empty=index not in self._answered)
            self._ends.append(event)
            self._runs(self._running.pop(index), -1)
            self._route.discarded(event.discarded_tokens)
            if event.target is not None:
                self._route.helped(event.target)
            if event.cut is not None:
                self._route.cuts[event.cut].inc()
            if event.budget is not None and event.budget.requested and event.budget.requested > 0:
                self._route.budget_used.observe(event.budget.used / event.budget.requested)

    def _runs(self, decision: Decision, replies: Literal[1, -1]) -> None:
        budgeted = decision.budget is not None and decision.budget.enforced is not None
        self._route.runs(decision.mode, replies, budgeted=budgeted)

    def _count(self, kind: TokenKind, tokens: int, at_least: int = COUNTED_AT_ONCE) -> None:
        self._uncounted[kind] += tokens
        if self._uncounted[kind] >= at_least:
            self._route.tokens[kind].inc(self._uncounted[kind])
            self._uncounted[kind] = 0

    def spoke(self) -> None:
        """There is text."""
        if self._first_token is None:
            self._first_token = time.perf_counter() - self._began
            self._request.first_token(self._first_token)

    def _answers(self) -> None:
        seconds = time.perf_counter() - self._began
        self._route.first_answer(seconds)
        if self._first_answer is None:
            self._first_answer = seconds

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for counted in self._uncounted:
            self._count(counted, 0, at_least=0)
        for decision in self._running.values():
            self._runs(decision, -1)
        if error is None:
            self._outcome = "ok"
            self._request.finished("ok")
        elif isinstance(error, Exception):
            self._outcome = failure(error)
            self._request.finished(self._outcome)
        else:  # cancelled, or closed where it stood
            self._outcome = "shutdown" if self._cut.is_set() else "client"
            self._request.aborted(self._outcome)

    def fields(self) -> dict[str, Any]:
        """The request as log lines and spans tell it: the decision record (of the first choice to end), then counts
        over all choices. Holds no text of the conversation.
        """
        told = self._ends[0].record if self._ends else self._decision.record() if self._decision else {}
        fields: dict[str, Any] = {"route": self._route.name, "outcome": self._outcome, **told}
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
    watching = RequestObserver(runtime.metrics.route(route), runtime.cut)
    request.scope["state"]["watch"] = watching
    return watching


def failure(error: Exception) -> Failure:
    """Whose fault it was."""
    if isinstance(error, EngineBusy):
        return "overloaded"
    return "refused" if api_error(error).status < 500 else "error"
