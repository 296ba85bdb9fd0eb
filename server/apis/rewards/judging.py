"""One validated request of the native reward API: its judge, how it judges, and how one item of it is judged."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from controllers.generation.events import Conversation
from controllers.judging.best_of_n import conversation_text
from controllers.judging.judge import Judge, JudgeParams, Vote
from controllers.judging.ranking import RankingProgress, TournamentRules, rank
from controllers.judging.scoring import criterion_for, score
from controllers.judging.tournament import VoteCount, matches_of, max_parallel
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import KeyLimits, fold
from server.apis.rewards.encoder import ranking_json, verdict_json
from server.apis.rewards.schema import CompareItem, Item, RankItem, RankRequest, RatedBody, RewardBody, ScoreItem
from server.apis.shared.generation import BYTES_A_TOKEN
from server.apis.shared.messages import text_turns
from server.assemble import Runtime, runtime_of
from server.observability.request_observer import UsageCounter

Notify = Callable[[RankingProgress | VoteCount], None]


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item's answer, and the votes that it took."""

    answer: dict[str, Any]
    votes: Sequence[Vote]


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """What an item takes: `comparisons` in all, and the most votes that are in flight together."""

    comparisons: int
    max_votes: int


def admitted(request: Request, judge: Judge, votes: int, usage: UsageCounter) -> AbstractAsyncContextManager[None]:
    """What a request to a judge runs inside: each of the votes that it has in flight at once reads its body."""
    runtime, key_name = runtime_of(request), request.scope["state"].get("key_name")
    route, votes = judge.route.name, min(votes, judge.settings.concurrency)
    prompt = int(request.headers.get("content-length", 0)) // BYTES_A_TOKEN
    work = runtime.admission.estimate(route, prompt, judge.route.sampling.max_tokens, None, votes)
    return runtime.admission.admitted(route, key_name, work, usage, votes)


@dataclass(frozen=True, slots=True)
class JudgingJob:
    """One validated request. `judge_item` judges one item of it."""

    body: RewardBody
    judge: Judge
    params: JudgeParams
    rules: TournamentRules
    judge_item: "JudgeItem"
    head: dict[str, Any]
    runtime: Runtime
    request: Request

    def admitted(self, votes: int, usage: UsageCounter) -> AbstractAsyncContextManager[None]:
        return admitted(self.request, self.judge, votes, usage)

    def plan(self, item: Item) -> ItemPlan:
        """Raises `NothingToJudgeBy` for a single reply with nothing beside it."""
        if isinstance(item, CompareItem):
            return ItemPlan(1, self.params.votes_at_once("pair"))
        if isinstance(item, ScoreItem):
            criterion = criterion_for(self.judge, item.criterion, len(item.replies))
            if criterion.basis != "group":
                count = len(item.replies)
                return ItemPlan(count, max(1, count * self.params.votes_at_once(criterion.kind)))
        method, players = self.rules.method, len(self.rules.playing(item.replies))
        max_votes = max(1, max_parallel(method, players) * self.params.votes_at_once("pair"))
        return ItemPlan(matches_of(method, players), max_votes)


JudgeItem = Callable[[JudgingJob, Any, Notify], Coroutine[Any, Any, ItemResult]]


def params_of(body: RewardBody, judge: Judge, key: KeyLimits) -> JudgeParams:
    """What the request says of judging over its key's limits, over the judge's own.

    Raises `PolicyError` for controls that cannot be honoured.
    """
    own = judge.params(body.votes, body.seed)
    asked = {name: getattr(body, name) for name in ("temperature", "top_p", "max_tokens")}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(
        own,
        policy=fold(body.controls(), judge.route.family, judge.route.defaults, key),
        sampling=replace(own.sampling, priority=body.priority, **given),
        keep_reasoning=body.include_reasoning,
        fixed_length=body.max_tokens is not None,
        request=Conversation((), cache_salt=body.cache_salt),
    )


def rules_of(body: RewardBody, judge: Judge) -> TournamentRules:
    if not isinstance(body, RatedBody):
        return TournamentRules()
    method = body.method if isinstance(body, RankRequest) else "round_robin"
    teams = judge.settings.teams if body.teams is None else body.teams
    return TournamentRules(method, body.rating, body.elo_k, body.elo_start, teams)


async def compare_item(job: JudgingJob, item: CompareItem, notify: Notify) -> ItemResult:
    comparison = JudgeComparison("pair", query_of(item), *item.replies)
    verdict = await job.judge.compare(comparison, job.params, notify)
    return ItemResult(verdict_json(verdict), verdict.votes)


async def rank_item(job: JudgingJob, item: RankItem, notify: Notify) -> ItemResult:
    ranking = await rank(job.judge, query_of(item), item.replies, job.params, job.rules, notify)
    return ItemResult(ranking_json(ranking), ranking.votes)


async def score_item(job: JudgingJob, item: ScoreItem, notify: Notify) -> ItemResult:
    graded = await score(job.judge, query_of(item), item.replies, job.params, job.rules, item.criterion, notify)
    answer: dict[str, Any] = {"scores": graded.values, "basis": graded.basis}
    if graded.ranking:
        answer |= {name: value for name, value in ranking_json(graded.ranking).items() if name != "scores"}
    else:
        answer["verdicts"] = [verdict_json(verdict) for verdict in graded.verdicts]
    return ItemResult(answer, graded.votes)


def query_of(item: Item) -> str:
    if item.query is not None:
        return item.query
    return conversation_text(text_turns(item.messages or ()))
