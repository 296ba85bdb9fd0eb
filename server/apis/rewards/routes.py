"""`POST /v1/rewards/compare`, `/rank`, `/score`: verdicts, orders and graded rewards, for one item or for thousands."""

import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from controllers.concurrency import with_progress
from controllers.judging.tournament import Vote
from server.apis.rewards.batch_answer import Batch
from server.apis.rewards.encoder import event, progress, usage, votes_json
from server.apis.rewards.judging import (
    Judged,
    JudgingJob,
    Tell,
    compare_item,
    rank_item,
    rules_of,
    score_item,
    terms_of,
    untold,
)
from server.apis.rewards.schema import (
    CompareRequest,
    Item,
    RankRequest,
    RewardBody,
    ScoreRequest,
)
from server.assemble import runtime_of
from server.edges.json_body import json_body
from server.edges.sse import DONE, EventStream, while_connected
from server.observability.request_observer import RequestObserver, watch

router = APIRouter()


@router.post("/v1/rewards/compare")
@json_body(CompareRequest)
async def compare(request: Request, body: CompareRequest) -> Response:
    return await _answer(request, body, compare_item, "reward.comparison")


@router.post("/v1/rewards/rank")
@json_body(RankRequest)
async def ranking(request: Request, body: RankRequest) -> Response:
    return await _answer(request, body, rank_item, "reward.ranking")


@router.post("/v1/rewards/score")
@json_body(ScoreRequest)
async def scores(request: Request, body: ScoreRequest) -> Response:
    return await _answer(request, body, score_item, "reward.scores")


async def _answer(
    request: Request,
    body: RewardBody,
    judge_item: Callable[[JudgingJob, Any, Tell], Coroutine[Any, Any, Judged]],
    kind: str,
) -> Response:
    runtime = runtime_of(request)
    judge = runtime.judge(body.model)
    request_id = request.scope["state"]["request_id"]
    head = {"id": f"reward-{request_id}", "object": kind, "created": int(time.time()), "model": judge.route.name}
    terms = terms_of(body, judge, runtime.limits(request))
    job = JudgingJob(body, judge, terms, rules_of(body, judge), judge_item, head, runtime)
    watching = watch(request, judge.route.name)
    if body.items is not None:
        batch = Batch(job, watching, request_id)
        return EventStream(
            batch.frames(), {} if body.stream else {"content-type": "application/json"}, ending=batch.ending
        )
    item = body.item(body.inline)
    comparisons = job.plan(item).comparisons  # before a stream begins: an error with its own status
    if body.stream:
        return EventStream(item_events(job, item, comparisons, watching), {})
    return await while_connected(request.receive, one_item(job, item, watching))


async def one_item(job: JudgingJob, item: Item, watch: RequestObserver) -> Response:
    with watch:
        judged = await job.judge_item(job, item, untold)
        watch.spoke()
    answer = {**job.head, **judged.answer, "usage": usage(judged.ballots)}
    return Response(orjson.dumps(answer), media_type="application/json")


async def item_events(
    job: JudgingJob, item: Item, comparisons: int, watch: RequestObserver
) -> AsyncGenerator[bytes, None]:
    """Progress as comparisons end, or as the votes of a single one are cast, then the answer."""

    def work(tell: Tell) -> Coroutine[Any, Any, Judged]:
        return job.judge_item(job, item, tell)

    head = {**job.head, "object": "reward.progress"}
    with watch:
        yield event({**head, "done": 0, "of": comparisons})
        async with aclosing(with_progress(work)) as told:
            async for said in told:
                watch.spoke()
                if isinstance(said, Judged):
                    yield event({**job.head, **said.answer, "usage": usage(said.ballots)})
                elif isinstance(said, Vote):
                    yield event({**head, "done": 0, "of": comparisons, "votes": votes_json(said)})
                else:
                    yield event({**head, **progress(said)})
    yield DONE
