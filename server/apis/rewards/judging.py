"""One validated request of the native reward API: its judge, its terms, and how one item of it is judged."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from controllers.judging.best_of_n import text_of
from controllers.judging.judge import Judge, JudgeParams, JudgeReply
from controllers.judging.ranking import RankingProgress, Rules, rank
from controllers.judging.scoring import score, settled
from controllers.judging.tournament import Vote, abreast_of, matches_of
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import KeyLimits, fold
from server.apis.rewards.encoder import ranking_json, verdict_json
from server.apis.rewards.schema import CompareItem, Item, RankItem, RankRequest, RatedBody, RewardBody, ScoreItem
from server.apis.shared.messages import text_turns
from server.assemble import Runtime

T = TypeVar("T")
Tell = Callable[[RankingProgress | Vote], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """One item's answer, and the votes that it took."""

    answer: dict[str, Any]
    ballots: Sequence[JudgeReply]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an item takes: `comparisons` in all, and the most votes that are in flight together."""

    comparisons: int
    weight: int


@dataclass(frozen=True, slots=True)
class JudgingJob:
    """One validated request. `judge_item` judges one item of it."""

    body: RewardBody
    judge: Judge
    terms: JudgeParams
    rules: Rules
    judge_item: Callable[["JudgingJob", Any, Tell], Coroutine[Any, Any, Judged]]
    head: dict[str, Any]
    runtime: Runtime

    def plan(self, item: Item) -> Plan:
        """Raises `NothingToJudgeBy` for a single reply with nothing beside it."""
        if isinstance(item, CompareItem):
            return Plan(1, self.terms.wave("pair"))
        if isinstance(item, ScoreItem):
            yardstick = settled(self.judge, item.yardstick, len(item.replies))
            if yardstick.basis != "group":
                count = len(item.replies)
                return Plan(count, max(1, count * self.terms.wave(yardstick.kind)))
        players = len(self.rules.playing(item.replies))
        abreast = abreast_of(self.rules.method, players)
        return Plan(matches_of(self.rules.method, players), max(1, abreast * self.terms.wave("pair")))


def untold(said: RankingProgress | Vote) -> None:
    """Nobody listens."""


def terms_of(body: RewardBody, judge: Judge, key: KeyLimits | None) -> JudgeParams:
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
    return replace(
        terms,
        policy=fold(body.controls(), judge.route.family, judge.route.defaults, key),
        sampling=sampling,
        reasoning=body.include_reasoning,
        held_to_length=body.max_tokens is not None,
    )


def rules_of(body: RewardBody, judge: Judge) -> Rules:
    if not isinstance(body, RatedBody):
        return Rules()
    method = body.method if isinstance(body, RankRequest) else "round_robin"
    return Rules(method, body.rating, body.elo_k, body.elo_start, _or(body.teams, judge.teams))


def _or(asked: T | None, default: T) -> T:
    return default if asked is None else asked


async def compare_item(job: JudgingJob, item: CompareItem, tell: Tell) -> Judged:
    comparison = JudgeComparison("pair", query_of(item), *item.replies)
    verdict = await job.judge.compare(comparison, job.terms, tell)
    return Judged(verdict_json(verdict), verdict.ballots)


async def rank_item(job: JudgingJob, item: RankItem, tell: Tell) -> Judged:
    outcome = await rank(job.judge, query_of(item), item.replies, job.terms, job.rules, tell)
    return Judged(ranking_json(outcome), [ballot for one in outcome.played for ballot in one.verdict.ballots])


async def score_item(job: JudgingJob, item: ScoreItem, tell: Tell) -> Judged:
    graded = await score(job.judge, query_of(item), item.replies, job.terms, job.rules, item.yardstick, tell)
    answer: dict[str, Any] = {"scores": graded.values, "basis": graded.basis}
    if graded.ranking:
        answer |= {key: value for key, value in ranking_json(graded.ranking).items() if key != "scores"}
    else:
        answer["verdicts"] = [verdict_json(verdict) for verdict in graded.verdicts]
    return Judged(answer, graded.ballots)


def query_of(item: Item) -> str:
    if item.query is not None:
        return item.query
    return text_of(text_turns(item.messages or ()))
