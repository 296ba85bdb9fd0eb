"""`items` of the native reward API: thousands of them, results in order, and an end that says what was not judged.

However an answer ends, what has been sent of it is whole: a batch that is cut off closes its list and names the first
item that was not judged.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import orjson

from controllers.judging.judge import ignore
from controllers.judging.scoring import NothingToJudgeBy
from server.apis.rewards.batch import NotJudged, Work, in_order
from server.apis.rewards.encoder import event_frame, usage
from server.apis.rewards.judging import ItemResult, JudgingJob
from server.edges.errors import ApiError, InvalidBody, reported
from server.edges.sse import DONE
from server.observability.request_observer import RequestObserver


class Batch:
    """One batch, and what has been sent of it. `frames` is its answer, `ending` what closes it when it fails or is cut
    off on the way."""

    def __init__(self, job: JudgingJob, watch: RequestObserver, request_id: str) -> None:
        self._job = job
        self._watch = watch
        self._request_id = request_id
        self._items = len(job.body.items or ())
        self._judged = self._sent = 0
        self._not_judged: list[int] = []
        self._usage = usage(())

    def frames(self) -> AsyncGenerator[bytes, None]:
        return self._events() if self._job.body.stream else self._json()

    def ending(self, error: ApiError) -> bytes:
        closing = {**self._totals(), "not_judged_from": self._sent, "error": error.fields()}
        if self._job.body.stream:
            return event_frame({**self._job.head, "object": "reward.end", **closing}) + DONE
        return b"]," + orjson.dumps(closing)[1:]

    async def _json(self) -> AsyncGenerator[bytes, None]:
        """One JSON object, sent while it grows."""
        yield orjson.dumps({**self._job.head, "object": "list"})[:-1] + b',"results":['
        async with aclosing(self._results()) as results:
            async for answer, result in results:
                yield (b"," if self._sent else b"") + orjson.dumps(answer)
                self._count(result)
        yield b"]," + orjson.dumps(self._totals())[1:]

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """A result an event; the last one has the totals."""
        async with aclosing(self._results()) as results:
            async for answer, result in results:
                yield event_frame({**self._job.head, **answer, "done": self._sent + 1, "of": self._items})
                self._count(result)
        yield event_frame({**self._job.head, "object": "reward.end", **self._totals()})
        yield DONE

    async def _results(self) -> AsyncGenerator[tuple[dict[str, Any], ItemResult | Exception], None]:
        job = self._job
        works: Iterator[Work[ItemResult] | Exception] = (self._work(sent) for sent in job.body.items or ())
        grace = job.runtime.config.server.drain_seconds / 2
        with self._watch:
            run = in_order(works, 2 * job.judge.concurrency, job.runtime.closing, grace)
            async with aclosing(run) as results:
                async for index, result in results:
                    self._watch.spoke()
                    if isinstance(result, ItemResult):
                        yield {"index": index, **result.answer}, result
                    else:
                        yield {"index": index, "error": reported(result, self._request_id).fields()}, result

    def _work(self, sent: Any) -> Work[ItemResult] | Exception:
        """One item, checked and ready to start, or why it cannot be."""
        try:
            item = self._job.body.item(sent)
            plan = self._job.plan(item)
        except (InvalidBody, NothingToJudgeBy) as error:
            return error
        return Work(plan.max_votes, lambda: self._job.judge_item(self._job, item, ignore))

    def _count(self, result: ItemResult | Exception) -> None:
        """Counts a result that has been sent."""
        self._sent += 1
        if isinstance(result, ItemResult):
            self._judged += 1
            more = usage(result.votes)
            self._usage = {name: count + more[name] for name, count in self._usage.items()}
        elif isinstance(result, NotJudged):
            self._not_judged.append(self._sent - 1)

    def _totals(self) -> dict[str, Any]:
        stopped = {"not_judged": self._not_judged} if self._not_judged else {}
        return {"judged": self._judged, "failed": self._sent - self._judged, **stopped, "usage": self._usage}
