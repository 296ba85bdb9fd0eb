"""`POST /v1/rewards/compare`, `/rank`, `/score`: verdicts, orders and graded rewards, for one item or for thousands."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from controllers.concurrency import with_progress
from controllers.judging.judge import ignore
from controllers.judging.tournament import VoteCount
from server.apis.rewards.batch_answer import BatchAnswer
from server.apis.rewards.encoder import count_json, event_frame, progress, usage
from server.apis.rewards.judging import (
    ItemPlan,
    ItemResult,
    JudgeItem,
    JudgingJob,
    compare_item,
    params_of,
    rank_item,
    rules_of,
    score_item,
)
from server.apis.rewards.schema import CompareRequest, Item, RankRequest, RewardBody, ScoreRequest
from server.assemble import runtime_of
from server.edges.endpoints import Routes, json_body
from server.edges.sse import DONE, EventStream, while_connected
from server.observability.request_observer import RequestObserver, watch


async def _answer(request: Request, body: RewardBody, judge_item: JudgeItem, kind: str) -> Response:
    runtime = runtime_of(request)
    judge = runtime.judge(body.model)
    request_id = request.scope["state"]["request_id"]
    head = {"id": f"reward-{request_id}", "object": kind, "created": int(time.time()), "model": judge.route.name}
    params = params_of(body, judge, runtime.limits(request))
    job = JudgingJob(body, judge, params, rules_of(body, judge), judge_item, head, runtime, request)
    watching = watch(request, judge.route.name)
    if body.items is not None:
        batch = BatchAnswer(job, watching, request_id)
        if body.stream:
            return EventStream(batch.frames(), {}, ending=batch.ending)
        headers = {"content-type": "application/json"}
        return EventStream(batch.frames(), headers, ending=batch.ending, alive=lambda: b"\n")
    item = body.item(body.inline)
    plan = job.plan(item)  # before a stream begins: an error with its own status
    if body.stream:
        return EventStream(item_events(job, item, plan, watching), {})
    return await while_connected(request.receive, one_item(job, item, plan, watching))


async def one_item(job: JudgingJob, item: Item, plan: ItemPlan, watch: RequestObserver) -> Response:
    with watch:
        async with job.admitted(plan.max_votes, watch.usage):
            answer = _whole(job, await job.judge_item(job, item, ignore), watch)
        watch.spoke()
    return Response(orjson.dumps(answer), media_type="application/json")


def _whole(job: JudgingJob, result: ItemResult, watch: RequestObserver) -> dict[str, Any]:
    watch.usage.judged(result.votes)
    return {**job.head, **result.answer, "usage": usage(watch.usage)}


async def item_events(
    job: JudgingJob, item: Item, plan: ItemPlan, watch: RequestObserver
) -> AsyncGenerator[bytes, None]:
    """Progress as comparisons end, or as the votes of a single one are cast, then the answer."""
    head, comparisons = {**job.head, "object": "reward.progress"}, plan.comparisons
    with watch:
        async with (
            job.admitted(plan.max_votes, watch.usage),
            aclosing(with_progress(partial(job.judge_item, job, item))) as events,
        ):
            yield event_frame({**head, "done": 0, "of": comparisons})
            async for event in events:
                watch.spoke()
                if isinstance(event, ItemResult):
                    yield event_frame(_whole(job, event, watch))
                elif isinstance(event, VoteCount):
                    yield event_frame({**head, "done": 0, "of": comparisons, "votes": count_json(event)})
                else:
                    yield event_frame({**head, **progress(event)})
    yield DONE


routes = Routes()


@routes.post("/v1/rewards/compare")
@json_body(CompareRequest)
async def compare(request: Request, body: CompareRequest) -> Response:
    return await _answer(request, body, compare_item, "reward.comparison")


@routes.post("/v1/rewards/rank")
@json_body(RankRequest)
async def ranking(request: Request, body: RankRequest) -> Response:
    return await _answer(request, body, rank_item, "reward.ranking")


@routes.post("/v1/rewards/score")
@json_body(ScoreRequest)
async def scores(request: Request, body: ScoreRequest) -> Response:
    return await _answer(request, body, score_item, "reward.scores")
