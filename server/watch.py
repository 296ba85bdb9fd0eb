"""What the metrics see of one request."""

import asyncio
import time
from types import TracebackType

from controllers.reply import Chunk, Decision, Event, Finished
from server.metrics import RouteMetrics


class Watch:
    """Follows one request's events into its route's metrics, from entering the context to leaving it."""

    __slots__ = ("_answered", "_began", "_request", "_route", "_spoke")

    def __init__(self, route: RouteMetrics) -> None:
        self._route = route
        self._began = time.perf_counter()
        self._spoke = False
        self._answered: set[int] = set()  # the choices whose answer has begun

    def __enter__(self) -> "Watch":
        self._request = self._route.started()
        return self

    def saw(self, index: int, event: Event) -> None:
        if isinstance(event, Chunk):
            if event.text and index not in self._answered:
                self.spoke()
                if event.kind == "answer":
                    self._answered.add(index)
                    self._route.first_answer(time.perf_counter() - self._began)
        elif isinstance(event, Decision):
            self._route.decided(event.mode, event.chosen_by)
        elif isinstance(event, Finished):
            self._route.replied(event.reasoning_tokens, event.answer_tokens, empty=index not in self._answered)
            if event.cut is not None:
                self._route.cuts[event.cut].inc()
            if event.budget is not None and event.budget.requested and event.budget.requested > 0:
                self._route.budget_used.observe(event.budget.used / event.budget.requested)

    def spoke(self) -> None:
        """There is text."""
        if not self._spoke:
            self._spoke = True
            self._request.first_token(time.perf_counter() - self._began)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._request.finished("ok")
        elif issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._request.aborted("client")
        else:
            self._request.finished("error")
