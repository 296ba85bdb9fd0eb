"""The reward protocols of trainers, each as its own client speaks it; `docs/rewards.md` has the trainers' flags.

They share one contract: several replies to one prompt are judged against each other, a single one against a reference,
a rubric or a rival, and where there is nothing to judge by the answer is a 4xx that says so. No lists, no work: 200.
Where the judge came to no verdict on a reply the answer is a 503 once all others are judged: they are remembered then,
and whoever asks again has only that reply judged anew, with other seeds.
`?model=…&votes=…&seed=…` on any of these paths choose the judge route and its terms.
"""

import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from controllers.concurrency import gather_bounded
from controllers.judging.best_of_n import text_of
from controllers.judging.judge import Judge, JudgeParams, JudgeReply, Verdict
from controllers.judging.ranking import Rules
from controllers.judging.scoring import Criterion, Scores, score, settled
from controllers.policy.controls import MOST_REPLIES
from models.text.template_marks import Marks
from server.apis.reward_protocols.schema import (
    Classify,
    Compare,
    GetReward,
    Rerank,
    Score,
    SlimeReward,
    Verify,
    turns,
    yardstick_in,
)
from server.apis.rewards.encoder import usage
from server.assemble import runtime_of
from server.edges.errors import ApiError
from server.edges.json_body import json_body
from server.edges.sse import while_connected
from server.observability.request_observer import RequestObserver, watch

router = APIRouter()

LEAST, MIDDLE, MOST = 1.0, 3.0, 5.0  # NeMo-Gym's scale of one reply
FIRST_BETTER, NEITHER, SECOND_BETTER = 1.0, 3.5, 6.0  # and of a pair


@dataclass(frozen=True, slots=True)
class ProtocolCall:
    """One caller's judge and terms, and what its template writes around turns."""

    judge: Judge
    terms: JudgeParams
    marks: Marks
    watch: RequestObserver

    async def score(self, query: str, replies: Sequence[str], yardstick: Criterion) -> Scores:
        """Scores of one prompt's replies."""
        return await score(self.judge, query, replies, self.terms, Rules(teams=self.judge.teams), yardstick)

    async def score_pairs(self, pairs: Sequence[tuple[str, str]], yardsticks: Sequence[Criterion]) -> "Graded":
        """Scores of (prompt, reply) pairs, in order: those that share prompt and yardstick are one group.

        Raises before any work where a group is too large or has nothing to be judged by.
        """
        groups: dict[tuple[str, Criterion], list[int]] = {}
        for i, ((query, _), yardstick) in enumerate(zip(pairs, yardsticks, strict=True)):
            groups.setdefault((query, yardstick), []).append(i)
        for (_, yardstick), members in groups.items():
            if settled(self.judge, yardstick, len(members)).basis == "group" and len(members) > MOST_REPLIES:
                message = f"{len(members)} replies to one prompt; at most {MOST_REPLIES} are judged against each other"
                raise ApiError(400, message, code="too_many_replies")
        works = [
            partial(self.score, query, [pairs[i][1] for i in members], yardstick)
            for (query, yardstick), members in groups.items()
        ]
        scored = await gather_bounded(self.judge.concurrency, works)
        places = [i for members in groups.values() for i in members]
        found = dict(zip(places, (value for scores in scored for value in scores.values), strict=True))
        values = had([found[i] for i in range(len(pairs))])
        return Graded(values, [ballot for scores in scored for ballot in scores.ballots])


def had(values: Sequence[float | None]) -> list[float]:
    """The scores, all of which are there. Raises the API's error where one is not: it is never 0 instead."""
    known = [value for value in values if value is not None]
    if len(known) == len(values):
        return known
    message = f"the judge came to no verdict on {len(values) - len(known)} of {len(values)} replies; ask again"
    raise ApiError(503, message, type="server_error", code="no_verdict", headers={"retry-after": "1"})


@dataclass(frozen=True, slots=True)
class Graded:
    values: list[float]
    ballots: list[JudgeReply]


def _call(request: Request, model: str | None = None, *, any_model: bool = False) -> ProtocolCall:
    """With `any_model` a model that is no route of ours is the caller's own name for its judge: the default one."""
    runtime = runtime_of(request)
    asked = dict(request.query_params)
    if unknown := asked.keys() - {"model", "votes", "seed"}:
        raise ApiError(400, f"{min(unknown)}: unknown parameter", param=min(unknown), code="unknown_parameter")
    if any_model and model not in runtime.judges:
        model = None
    judge = runtime.judge(asked.get("model") or model)
    votes, seed = _number(asked, "votes", 1, 128), _number(asked, "seed", 0, 2**63 - 1) or 0
    terms = judge.terms(votes, seed, runtime.limits(request))
    name = judge.route.name
    return ProtocolCall(judge, terms, runtime.marks[name], watch(request, name))


def _number(asked: Mapping[str, str], name: str, lowest: int, highest: int) -> int | None:
    if name not in asked:
        return None
    text = asked[name]
    if not (text.isascii() and text.isdigit()) or not lowest <= int(text[:20]) <= highest:
        raise ApiError(400, f"{name}: expected a number from {lowest} to {highest}", param=name, code="invalid_value")
    return int(text)


async def _answer(request: Request, call: ProtocolCall, work: Coroutine[Any, Any, Any]) -> Response:
    async def whole() -> Any:
        with call.watch:
            value = await work
            call.watch.spoke()
            return value

    return Response(orjson.dumps(await while_connected(request.receive, whole())), media_type="application/json")


@router.post("/get_reward")
@json_body(GetReward)
async def get_reward(request: Request, body: GetReward) -> Response:
    """OpenRLHF, `--reward.remote_url`. With several URLs all but the first get empty lists: nothing to do, 200."""
    call = _call(request)
    return await _answer(request, call, _get_reward(call, body))


def _pair(marks: Marks, field: str, text: str, prompt: str = "") -> tuple[str, str]:
    pair = marks.split(text, prompt)
    if pair is None:
        message = (
            f"{field}: it does not show where the reply begins, for it holds no {marks.to_reply!r};"
            " the judge route's chat template must be the trained model's"
        )
        raise ApiError(400, message, param=field, code="invalid_value")
    return pair


async def _get_reward(call: ProtocolCall, body: GetReward) -> dict[str, Any]:
    prompts = body.prompts or [""] * len(body.query)
    sent = enumerate(zip(body.query, prompts, strict=True))
    pairs = [_pair(call.marks, f"query.{i}", query, prompt) for i, (query, prompt) in sent]
    yardsticks = [yardstick_in({"label": label}) for label in body.labels or [None] * len(pairs)]
    graded = await call.score_pairs(pairs, yardsticks)
    return {"rewards": graded.values, "scores": graded.values, "extra_logs": {}}


@router.post("/reward")
@json_body(SlimeReward)
async def slime(request: Request, body: SlimeReward) -> Response:
    """slime, `--rm-url`: one sample; the answer is the number itself."""
    call = _call(request)
    marks = call.marks
    prompt = marks.prompt_text(body.prompt) if isinstance(body.prompt, str) else text_of(turns(body.prompt))
    label = yardstick_in({"label": body.label})
    yardstick = label if label.text else body.yardstick
    return await _answer(request, call, _one(call, prompt, marks.reply_text(body.response), yardstick))


async def _one(call: ProtocolCall, prompt: str, reply: str, yardstick: Criterion) -> float:
    return had((await call.score(prompt, [reply], yardstick)).values)[0]


@router.post("/classify")
@json_body(Classify)
async def classify(request: Request, body: Classify) -> Response:
    """verl's discriminative reward model, which reads `data[-1].probs[-1]`."""
    call = _call(request, body.model, any_model=True)
    return await _answer(request, call, _classify(call, body))


async def _classify(call: ProtocolCall, body: Classify) -> dict[str, Any]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    pairs = [_pair(call.marks, "input", text) for text in texts]
    graded = await call.score_pairs(pairs, [body.yardstick] * len(pairs))
    data = [{"index": i, "label": None, "probs": [value], "num_classes": 1} for i, value in enumerate(graded.values)]
    return {**_head("classify", call), "data": data, "usage": usage(graded.ballots)}


def _head(request_id: str, call: ProtocolCall) -> dict[str, Any]:
    return {"id": request_id, "object": "list", "created": int(time.time()), "model": call.judge.route.name}


@router.post("/score")
@router.post("/v1/score")
@json_body(Score)
async def vllm_score(request: Request, body: Score) -> Response:
    """vLLM's score API: the documents to one query are judged against each other."""
    call = _call(request, body.model)
    return await _answer(request, call, _vllm_score(call, body))


async def _vllm_score(call: ProtocolCall, body: Score) -> dict[str, Any]:
    replies, queries = body.replies, body.pairs_from
    queries = queries * len(replies) if len(queries) == 1 else queries
    graded = await call.score_pairs(list(zip(queries, replies, strict=True)), [body.yardstick] * len(replies))
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(graded.values)]
    return {**_head("score", call), "data": data, "usage": usage(graded.ballots)}


@router.post("/rerank")
@router.post("/v1/rerank")
@router.post("/v2/rerank")
@json_body(Rerank)
async def rerank(request: Request, body: Rerank) -> Response:
    """Cohere's, Jina's and vLLM's rerank API: the documents are replies, best first."""
    call = _call(request, body.model)
    return await _answer(request, call, _rerank(call, body))


async def _rerank(call: ProtocolCall, body: Rerank) -> dict[str, Any]:
    replies = body.replies
    graded = await call.score_pairs([(body.query, reply) for reply in replies], [body.yardstick] * len(replies))
    order = sorted(range(len(replies)), key=lambda i: (-graded.values[i], i))[: body.top_n or len(replies)]
    shown = [{"document": {"text": reply}} if body.return_documents else {} for reply in replies]
    results = [{"index": i, **shown[i], "relevance_score": graded.values[i]} for i in order]
    return {"id": "rerank", "model": call.judge.route.name, "results": results, "usage": usage(graded.ballots)}


@router.post("/seed_session")
async def seed_session() -> Response:
    """NeMo-Gym's agents begin every episode with this. A judge has nothing to prepare, whatever the body is."""
    return Response(b"{}", media_type="application/json")


@router.post("/verify")
@json_body(Verify)
async def verify(request: Request, body: Verify) -> Response:
    """NeMo-Gym's resources server: the same body, with the reward of its one reply."""
    call = _call(request)
    asked = body.responses_create_params.input
    prompt = asked if isinstance(asked, str) else text_of(turns(asked))
    try:
        sent = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:  # pydantic lets NaN and Infinity pass, which JSON does not have
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_value") from error

    async def with_reward() -> dict[str, Any]:
        reply = call.marks.reply_text(body.response.text)
        return {**sent, "reward": await _one(call, prompt, reply, body.yardstick)}

    return await _answer(request, call, with_reward())


@router.post("/compare")
@json_body(Compare)
async def nemo_compare(request: Request, body: Compare) -> Response:
    """NeMo-Gym's comparison of several replies: all pairs, with one result a vote."""
    call = _call(request)
    return await _answer(request, call, _nemo_compare(call, body))


async def _nemo_compare(call: ProtocolCall, body: Compare) -> dict[str, Any]:
    query = text_of(turns(body.conversation_history))
    if body.principle:
        query += f"\n\nJudge by this principle: {body.principle}"
    replies = [call.marks.reply_text(response.text) for response in body.response_objs]
    scores = await call.score(query, replies, Criterion())
    rewards = had(scores.values)
    played = scores.ranking.played if scores.ranking else []
    results = [result for one in played for result in _results(one.match.first, one.match.second, one.verdict)]
    abstained = sum(ballot.side is None for ballot in scores.ballots)
    metrics = {"comparisons": len(played), "votes": len(scores.ballots), "abstentions": abstained}
    return {"rewards": rewards, "comparison_results": results, "metrics": metrics}


def _results(first: int, second: int, verdict: Verdict) -> list[dict[str, Any]]:
    """A verdict has two values, so a vote is the end of each scale, or its middle where the judge abstained."""
    scales = {0: (MOST, LEAST, FIRST_BETTER), 1: (LEAST, MOST, SECOND_BETTER), None: (MIDDLE, MIDDLE, NEITHER)}
    answer = []
    for i, ballot in enumerate(verdict.ballots):
        score_1, score_2, ranking = scales[ballot.side]
        pair = {"response_i": first, "response_j": second, "judge_idx": i}
        answer.append({**pair, "score_1": score_1, "score_2": score_2, "ranking": ranking})
    return answer
