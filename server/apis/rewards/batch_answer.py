"""`items` of the native reward API: thousands of them, results in order, and an end that says what was not judged.

However an answer ends, what has been sent of it is whole: a batch that is cut off closes its list and names the first
item that was not judged.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson

from controllers.judging.judge import ignore
from controllers.judging.scoring import NothingToJudgeBy
from server.apis.rewards.batch import WorkItem, in_order
from server.apis.rewards.encoder import event_frame, usage
from server.apis.rewards.judging import ItemResult, JudgingJob
from server.edges.errors import ApiError, InvalidBody, NotJudged, reported
from server.edges.sse import DONE
from server.observability.request_observer import RequestObserver


class BatchAnswer:
    """One batch, and what has been sent of it. `frames` is its answer, `ending` what closes it when it fails or is cut
    off on the way."""

    def __init__(self, job: JudgingJob, watch: RequestObserver, request_id: str) -> None:
        self._job = job
        self._watch = watch
        self._request_id = request_id
        self._judged = self._sent = 0
        self._not_judged: list[int] = []
        self._opened = job.body.stream  # a stream of events has no beginning

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """A result an event, or one JSON object that is sent while it grows. The end has the totals."""
        job, items = self._job, self._job.body.items or ()
        grace = job.runtime.config.server.drain_seconds / 2
        run = in_order(map(self._work, items), 2 * job.judge.settings.concurrency, job.runtime.closing, grace)
        with self._watch:
            async with job.admitted(job.judge.settings.concurrency, self._watch.usage), aclosing(run) as results:
                if opening := self._opening():
                    yield opening
                async for result in results:
                    self._watch.spoke()
                    answer = {"index": self._sent, **self._answer(result)}
                    if job.body.stream:
                        yield event_frame({**job.head, **answer, "done": self._sent + 1, "of": len(items)})
                    else:
                        yield (b"," if self._sent else b"") + orjson.dumps(answer)
                    self._count(result)
        yield self._end({})

    def _opening(self) -> bytes:
        """The beginning of the one JSON object, once."""
        if self._opened:
            return b""
        self._opened = True
        return orjson.dumps({**self._job.head, "object": "list"})[:-1] + b',"results":['

    def ending(self, error: ApiError) -> bytes:
        return self._end({"not_judged_from": self._sent, "error": error.fields()})

    def _end(self, more: dict[str, Any]) -> bytes:
        stopped = {"not_judged": self._not_judged} if self._not_judged else {}
        counts = {"judged": self._judged, "failed": self._sent - self._judged}
        totals = {**counts, **stopped, "usage": usage(self._watch.usage), **more}
        if self._job.body.stream:
            return event_frame({**self._job.head, "object": "reward.end", **totals}) + DONE
        return self._opening() + b"]," + orjson.dumps(totals)[1:]

    def _work(self, sent: Any) -> WorkItem[ItemResult] | Exception:
        """One item, checked and ready to start, or why it cannot be."""
        try:
            item = self._job.body.item(sent)
            plan = self._job.plan(item)
        except (InvalidBody, NothingToJudgeBy) as error:
            return error
        return WorkItem(plan.max_votes, partial(self._job.judge_item, self._job, item, ignore))

    def _answer(self, result: ItemResult | BaseException) -> dict[str, Any]:
        if isinstance(result, ItemResult):
            return result.answer
        if not isinstance(result, Exception):
            raise result
        return {"error": reported(result, self._request_id).fields()}

    def _count(self, result: ItemResult | BaseException) -> None:
        """Counts a result that has been sent."""
        if isinstance(result, ItemResult):
            self._judged += 1
            self._watch.usage.judged(result.votes)
        elif isinstance(result, NotJudged):
            self._not_judged.append(self._sent)
        self._sent += 1
