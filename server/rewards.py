"""`POST /v1/rewards/compare`, `/rank`, `/score`: verdicts, orders and graded rewards, for one item or for thousands."""

import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from controllers.best_of_n import text_of
from controllers.choices import narrated
from controllers.judge import Ballot, Judge, Terms
from controllers.policy import KeyLimits, fold
from controllers.ranking import Notify, Progress, Rules, rank, unheard
from controllers.scoring import Yardstick, require, score
from controllers.verdicts import Comparison
from server.batch import NotJudged, Work, in_order
from server.bodies import takes
from server.errors import reported
from server.reward_json import progress, ranking_json, usage, verdict_json
from server.runtime import Runtime, runtime_of
from server.sse import DONE, EventStream, while_connected
from server.watch import Watch, watch
from server.wire.rewards import (
    CompareBody,
    CompareItem,
    CompareRequest,
    Item,
    RankBody,
    RankItem,
    RankRequest,
    RewardBody,
    ScoreBody,
    ScoreItem,
    ScoreRequest,
)

router = APIRouter()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """One item's answer, and the votes that it took."""

    answer: dict[str, Any]
    ballots: Sequence[Ballot]


@dataclass(frozen=True, slots=True)
class Job:
    """One validated request. `judge_item` judges one item of it."""

    body: RewardBody
    judge: Judge
    terms: Terms
    judge_item: Callable[["Job", Any, Notify], Coroutine[Any, Any, Judged]]
    head: dict[str, Any]
    runtime: Runtime

    def work(self, sent: Any) -> Work[Judged] | Exception:
        """One item of `items`, checked and ready to start, or why it cannot be."""
        try:
            item = self.body.item(sent)
        except ValidationError as error:
            return error
        return Work(item.comparisons, lambda: self.judge_item(self, item, unheard))

    def run(self) -> AsyncGenerator[tuple[int, Judged | Exception], None]:
        works: Iterator[Work[Judged] | Exception] = (self.work(sent) for sent in self.body.items or ())
        grace = self.runtime.config.server.drain_seconds / 2
        return in_order(works, 2 * self.judge.concurrency, self.runtime.draining, grace)


@router.post("/v1/rewards/compare")
@takes(CompareRequest)
async def compare(request: Request, body: CompareBody) -> Response:
    return await _answer(request, body, _compare, "reward.comparison")


@router.post("/v1/rewards/rank")
@takes(RankRequest)
async def ranking(request: Request, body: RankBody) -> Response:
    return await _answer(request, body, _rank, "reward.ranking")


@router.post("/v1/rewards/score")
@takes(ScoreRequest)
async def scores(request: Request, body: ScoreBody) -> Response:
    return await _answer(request, body, _score, "reward.scores")


async def _answer(
    request: Request,
    body: RewardBody,
    judge_item: Callable[[Job, Any, Notify], Coroutine[Any, Any, Judged]],
    kind: str,
) -> Response:
    runtime = runtime_of(request)
    judge = runtime.judge(body.model)
    request_id = request.scope["state"]["request_id"]
    head = {"id": f"reward-{request_id}", "object": kind, "created": int(time.time()), "model": judge.route.name}
    job = Job(body, judge, terms_of(body, judge, runtime.limits(request)), judge_item, head, runtime)
    watching = watch(request, judge.route.name)
    if body.items is not None:
        frames = batch_events(job, watching, request_id) if body.stream else batch_json(job, watching, request_id)
        return EventStream(frames, {} if body.stream else {"content-type": "application/json"})
    item = body.item(body.inline)
    if isinstance(item, ScoreItem):
        require(yardstick_of(job, item), len(item.replies))  # before a stream begins: an error with its own status
    if body.stream:
        return EventStream(item_events(job, item, watching), {})
    return await while_connected(request.receive, one_item(job, item, watching))


def terms_of(body: RewardBody, judge: Judge, key: KeyLimits | None) -> Terms:
    """The request's terms over its key's limits, over the judge's own.

    Raises `PolicyError` for controls that cannot be honoured.
    """
    terms = judge.terms(body.votes, body.seed)
    own = terms.sampling
    sampling = replace(
        own,
        temperature=_or(body.temperature, own.temperature),
        top_p=_or(body.top_p, own.top_p),
        max_tokens=_or(body.max_tokens, own.max_tokens),
    )
    policy = fold(body.controls(), judge.route.family, judge.route.defaults, key)
    return replace(terms, policy=policy, sampling=sampling, reasoning=body.include_reasoning)


async def one_item(job: Job, item: Item, watch: Watch) -> Response:
    with watch:
        judged = await job.judge_item(job, item, unheard)
        watch.spoke()
    answer = {**job.head, **judged.answer, "usage": usage(judged.ballots)}
    return Response(orjson.dumps(answer), media_type="application/json")


async def item_events(job: Job, item: Item, watch: Watch) -> AsyncGenerator[bytes, None]:
    """Progress as comparisons end, then the answer."""

    def work(tell: Notify) -> Coroutine[Any, Any, Judged]:
        return job.judge_item(job, item, tell)

    with watch:
        yield _event({**job.head, "object": "reward.progress", "done": 0, "of": item.comparisons})
        async with aclosing(narrated(work)) as told:
            async for said in told:
                watch.spoke()
                if isinstance(said, Progress):
                    yield _event({**job.head, "object": "reward.progress", **progress(said)})
                else:
                    yield _event({**job.head, **said.answer, "usage": usage(said.ballots)})
    yield DONE


async def batch_json(job: Job, watch: Watch, request_id: str) -> AsyncGenerator[bytes, None]:
    """The answer to `items` as one JSON object, sent while it grows."""
    totals = _Totals(len(job.body.items or ()))
    yield orjson.dumps({**job.head, "object": "list"})[:-1] + b',"results":['
    async for index, result in _results(job, watch, totals, request_id):
        yield (b"," if index else b"") + orjson.dumps(result)
    yield b"]," + orjson.dumps(totals.as_json())[1:]


async def batch_events(job: Job, watch: Watch, request_id: str) -> AsyncGenerator[bytes, None]:
    """The results of `items` as events, in order; the last event has the totals."""
    totals = _Totals(len(job.body.items or ()))
    async for _, result in _results(job, watch, totals, request_id):
        yield _event({**job.head, **result, "done": totals.judged + totals.failed, "of": totals.items})
    yield _event({**job.head, "object": "reward.end", **totals.as_json()})
    yield DONE


async def _results(
    job: Job, watch: Watch, totals: "_Totals", request_id: str
) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
    with watch:
        async with aclosing(job.run()) as results:
            async for index, result in results:
                watch.spoke()
                totals.add(index, result)
                if isinstance(result, Judged):
                    yield index, {"index": index, **result.answer}
                else:
                    yield index, {"index": index, "error": reported(result, request_id).fields()}


class _Totals:
    """Counts over a batch. A server that stops leaves the end of the batch: those from `not_judged_from` on."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.judged = self.failed = 0
        self.not_judged: list[int] = []
        self.usage = usage(())

    def add(self, index: int, result: Judged | Exception) -> None:
        if isinstance(result, Judged):
            self.judged += 1
            self.usage = {name: count + usage(result.ballots)[name] for name, count in self.usage.items()}
            return
        self.failed += 1
        if isinstance(result, NotJudged):
            self.not_judged.append(index)

    def as_json(self) -> dict[str, Any]:
        stopped = {"not_judged": self.not_judged} if self.not_judged else {}
        return {"judged": self.judged, "failed": self.failed, **stopped, "usage": self.usage}


async def _compare(job: Job, item: CompareItem, tell: Notify) -> Judged:
    del tell  # there is one comparison
    first, second = item.replies
    verdict = await job.judge.compare(Comparison("pair", query_of(item), first, second), job.terms)
    return Judged(verdict_json(verdict), verdict.ballots)


async def _rank(job: Job, item: RankItem, tell: Notify) -> Judged:
    outcome = await rank(job.judge, query_of(item), item.replies, job.terms, rules_of(job), tell)
    verdicts = [one.verdict for played in outcome.rounds for one in played]
    return Judged(ranking_json(outcome), [ballot for verdict in verdicts for ballot in verdict.ballots])


async def _score(job: Job, item: ScoreItem, tell: Notify) -> Judged:
    yardstick = yardstick_of(job, item)
    graded = await score(job.judge, query_of(item), item.replies, job.terms, rules_of(job), yardstick, tell)
    answer: dict[str, Any] = {"scores": graded.values, "basis": graded.basis}
    if graded.ranking:
        answer |= {key: value for key, value in ranking_json(graded.ranking).items() if key != "scores"}
    else:
        answer["verdicts"] = [verdict_json(verdict) for verdict in graded.verdicts]
    return Judged(answer, graded.ballots)


def yardstick_of(job: Job, item: ScoreItem) -> Yardstick:
    """The item's own, or the route's rubric for a single reply that comes without."""
    rubric = job.runtime.config.routes[job.judge.route.name].judge.rubric
    alone = item.yardstick.basis == "group" and len(item.replies) == 1
    return Yardstick("rubric", rubric) if alone and rubric else item.yardstick


def rules_of(job: Job) -> Rules:
    body = job.body
    if isinstance(body, RankBody):
        return Rules(body.method, body.rating, body.elo_k, body.elo_start, _or(body.teams, job.judge.teams))
    if isinstance(body, ScoreBody):
        rating, k, start = body.rating, body.elo_k, body.elo_start
        return Rules(rating=rating, elo_k=k, elo_start=start, teams=_or(body.teams, job.judge.teams))
    return Rules()


def _or(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def query_of(item: Item) -> str:
    if item.query is not None:
        return item.query
    return text_of([message.as_template_input() for message in item.messages or ()])


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
