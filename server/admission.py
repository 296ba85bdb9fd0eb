"""Who may begin, and who has to wait or to come again: by estimated work, in tokens, and fair between keys.

A request begins while the work that runs on its route has room for it. Else it waits in a queue with a bound and a
deadline, and is refused at once where it would wait in vain. Of the keys that wait, the one that has had the least work
is next. A key may have limits of its own besides.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from pydantic import Field

from models.config import Section, Tokens
from models.engines.base import EngineBusy

MINUTE = 60.0
FIRST_MEAN = 512.0  # tokens of a reply, before there has been one
SMOOTHING = 0.05  # weight of the newest reply in the means
PATIENCE = 2.0  # times the wait that was estimated
RATE_SECONDS = 30.0  # over which the pace of a route is measured

Cause = Literal["bound", "deadline", "key_requests", "key_tokens"]


class AdmissionConfig(Section):
    """`[routes.NAME.admission]`. `running_tokens` is the estimated work that may run at once, prompts and replies
    together; 0: everything begins. Of the others up to `queue_tokens` wait, where they will not have to for more than
    `queue_seconds` by estimate; in truth twice as long at most. One key may have `key_share` of the queue, and
    `running_share` of what runs."""

    running_tokens: Tokens = 0
    queue_tokens: Tokens = 1_000_000
    queue_seconds: float = Field(default=30.0, ge=0)
    key_share: float = Field(default=0.5, gt=0, le=1)
    running_share: float = Field(default=1.0, gt=0, le=1)


class Refusal(EngineBusy):
    """The request may succeed when `retry_after` seconds have passed."""

    def __init__(self, message: str, cause: Cause, retry_after: float) -> None:
        super().__init__(message)
        self.cause = cause
        self.retry_after = max(1, round(retry_after))


class Usage(Protocol):
    """What a request has used so far."""

    prompt_tokens: int
    completion_tokens: int
    votes: int


@dataclass(slots=True, eq=False)
class _Waiting:
    work: int
    turn: asyncio.Future[None]


@dataclass(slots=True)
class RouteQueue:
    """What runs and what waits on one route. `had` is the work that each key has had while it waited, counted from the
    least that any key had when it came: who comes late is owed nothing for the time before. `done` are the requests
    that ended while others waited: the pace at which a full route works."""

    settings: AdmissionConfig
    clock: Callable[[], float]
    running: Counter[str] = field(default_factory=Counter)
    queued: Counter[str] = field(default_factory=Counter)
    refused: Counter[Cause] = field(default_factory=lambda: Counter(dict.fromkeys(get_args(Cause), 0)))
    mean_reply: float = FIRST_MEAN
    mean_seconds: float = 0.0
    _waiting: dict[str, deque[_Waiting]] = field(default_factory=dict)
    _had: dict[str, float] = field(default_factory=dict)
    _done: deque[tuple[float, int]] = field(default_factory=deque)

    async def enter(self, key: str, work: int) -> None:
        """Returns when the request may begin. Raises `Refusal`."""
        if not self._waiting and self._has_room(work) and self._has_share(key, work):
            self.running[key] += work
            return
        self._require_hope(key, work)
        waiting = self._queue(key, work)
        self._begin()  # those that wait may wait for their key's share alone
        try:
            async with asyncio.timeout(PATIENCE * self.settings.queue_seconds):
                await waiting.turn
        except BaseException as error:
            if waiting.turn.cancelled():
                self._forget(key, waiting)
            else:  # it came as the request was ended
                self._end(key, work)
            self._begin()
            if isinstance(error, TimeoutError):
                raise self._refusal("deadline", "it has waited for too long") from None
            raise

    def leave(self, key: str, work: int, seconds: float, reply_tokens: float | None) -> None:
        """The request is over after so many seconds, and others may begin. `reply_tokens` is the mean length of its
        replies; None where it had none."""
        self._end(key, work)
        if reply_tokens is not None:
            self.mean_reply += SMOOTHING * (reply_tokens - self.mean_reply)
            self.mean_seconds += (SMOOTHING if self.mean_seconds else 1.0) * (seconds - self.mean_seconds)
        if self._waiting:
            now = self.clock()
            self._done.append((now, work))
            while self._done[0][0] < now - RATE_SECONDS:
                self._done.popleft()
        else:
            self._done.clear()
        self._begin()

    def _has_room(self, work: int) -> bool:
        """A request that is larger than all the room begins where nothing else runs."""
        most, running = self.settings.running_tokens, self.running.total()
        return most == 0 or running == 0 or running + work <= most

    def _has_share(self, key: str, work: int) -> bool:
        most, own = self.settings.running_share * self.settings.running_tokens, self.running.get(key, 0)
        return most == 0 or own == 0 or own + work <= most

    def _begin(self) -> None:
        """Lets begin whose turn it is."""
        while (found := self._next()) is not None:
            key, waiting = found
            self._forget(key, waiting)
            if not waiting.turn.cancelled():  # else whoever waited has been ended, and is yet to hear of it
                self._had[key] = self._had.get(key, 0.0) + waiting.work
                self.running[key] += waiting.work
                waiting.turn.set_result(None)

    def _next(self) -> tuple[str, _Waiting] | None:
        """Of the key that has had the least. A key that has its share of what runs is passed over; a request that finds
        too little room is not, so that large ones have their turn."""
        for key in sorted(self._waiting, key=self._had.__getitem__):
            waiting = self._waiting[key][0]
            if waiting.turn.cancelled() or self._has_share(key, waiting.work):
                return (key, waiting) if waiting.turn.cancelled() or self._has_room(waiting.work) else None
        return None

    def _end(self, key: str, work: int) -> None:
        self.running[key] -= work
        if not self.running[key]:
            del self.running[key]

    def _queue(self, key: str, work: int) -> _Waiting:
        waiting = _Waiting(work, asyncio.get_running_loop().create_future())
        if key not in self._waiting:
            least = min((self._had[other] for other in self._waiting), default=0.0)
            self._had[key] = max(self._had.get(key, 0.0), least)
        self._waiting.setdefault(key, deque()).append(waiting)
        self.queued[key] += work
        return waiting

    def _forget(self, key: str, waiting: _Waiting) -> None:
        """Takes it out of the line, unless it has left."""
        if waiting not in self._waiting.get(key, ()):
            return
        self._waiting[key].remove(waiting)
        self.queued[key] -= waiting.work
        if not self._waiting[key]:
            del self._waiting[key], self.queued[key]
        if not self._waiting:
            self._had.clear()

    def _require_hope(self, key: str, work: int) -> None:
        """Raises `Refusal` where the request should not even wait."""
        most, own = self.settings.queue_tokens, self.queued.get(key, 0) + work
        if self.queued.total() + work > most or (key in self._waiting and own > self.settings.key_share * most):
            raise self._refusal("bound", "the queue is full")
        # Keys take turns by work: before this request begins, every other key may have as much as its own.
        ahead = own * len({key, *self.queued, *self.running})
        if (seconds := self._seconds(ahead)) > self.settings.queue_seconds:
            raise self._refusal("deadline", f"it would wait some {seconds:.0f} seconds")

    def _seconds(self, work: int) -> float:
        """How long so much work takes at the pace of now. While too little has ended to tell, it is supposed that as
        much as may runs for as long as requests have run."""
        (first, ended), (last, _) = (self._done[0], self._done[-1]) if self._done else ((0.0, 0), (0.0, 0))
        if last - first < 2 * self.mean_seconds or last == first:
            return work * self.mean_seconds / self.settings.running_tokens
        return work * (last - first) / (sum(done for _, done in self._done) - ended)

    def _refusal(self, cause: Cause, message: str) -> Refusal:
        self.refused[cause] += 1
        return Refusal(message, cause, self._seconds(self.queued.total()))


@dataclass(slots=True)
class KeyUse:
    """What one key has in flight, and its tokens of the last minute as a bucket that fills evenly."""

    max_requests: int
    tokens_per_minute: int
    clock: Callable[[], float]
    requests: int = 0
    level: float = 0.0
    at: float | None = None

    def enter(self, work: int) -> None:
        """Raises `Refusal`. The estimated work is taken from the bucket until it is known."""
        self._fill()
        if self.max_requests and self.requests >= self.max_requests:
            raise Refusal(f"this key may have {self.max_requests} requests at once", "key_requests", 1.0)
        if self.tokens_per_minute and self.level <= 0:
            seconds = (1 - self.level) * MINUTE / self.tokens_per_minute
            raise Refusal(f"this key may have {self.tokens_per_minute} tokens a minute", "key_tokens", seconds)
        self.requests += 1
        self.level -= work

    def leave(self, work: int, used: int) -> None:
        self._fill()
        self.requests -= 1
        self.level += work - used

    def _fill(self) -> None:
        now = self.clock()
        if self.at is None:
            self.level = self.tokens_per_minute
        else:
            filled = self.level + (now - self.at) * self.tokens_per_minute / MINUTE
            self.level = min(self.tokens_per_minute, filled)
        self.at = now


class Admission:
    """Of all routes and keys. `keys` are their most requests at once and tokens a minute, 0 for no limit."""

    def __init__(
        self,
        routes: Mapping[str, AdmissionConfig],
        keys: Mapping[str, tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = {name: RouteQueue(settings, clock) for name, settings in routes.items()}
        self._keys = {name: KeyUse(*limits, clock) for name, limits in keys.items() if any(limits)}

    def estimate(self, route: str, prompt: int, max_tokens: int | None, budget: int | None, replies: int = 1) -> int:
        """The work of a request, in tokens: of its prompt, and of replies as long as they have been on this route but
        no longer than they may be."""
        mean = self.routes[route].mean_reply
        limits = [
            mean,
            *(() if max_tokens is None else (max_tokens,)),
            *(() if budget is None else (budget + FIRST_MEAN,)),
        ]
        return int(replies * (prompt + max(1, min(limits))))

    @asynccontextmanager
    async def admitted(
        self, route: str, key: str | None, work: int, usage: Usage, replies: int = 1
    ) -> AsyncIterator[None]:
        """The request runs inside, and counts into `usage`. Raises `Refusal` where it may not begin, or not in time."""
        queue, use = self.routes[route], self._keys.get(key or "")
        try:
            if use is not None:
                use.enter(work)
        except Refusal as refusal:
            queue.refused[refusal.cause] += 1
            raise
        try:
            await queue.enter(key or "", work)
            began = queue.clock()
            try:
                yield
            finally:
                replies = usage.votes or replies
                reply_tokens = usage.completion_tokens / replies if usage.completion_tokens else None
                queue.leave(key or "", work, queue.clock() - began, reply_tokens)
        finally:
            if use is not None:
                use.leave(work, usage.prompt_tokens + usage.completion_tokens)
