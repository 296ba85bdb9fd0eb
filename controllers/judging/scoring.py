"""Replies to one query as graded rewards between 0 and 1, on whatever there is to judge them by.

Several replies are judged against each other. A single one needs a reference, a rubric or a rival: without any of them
there is nothing to compare it with, and a reward is never made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Literal, Self

from controllers.concurrency import gather_bounded
from controllers.judging.judge import Judge, JudgeParams, Verdict, Vote, ignore
from controllers.judging.ranking import Notify, Ranking, RankingProgress, TournamentRules, rank
from controllers.judging.verdicts import JudgeComparison
from models.judge_prompts.families import Kind

Basis = Literal["group", "reference", "rubric", "rival"]


class NothingToJudgeBy(Exception):
    """A single reply came without a reference, a rubric, a rival or another reply. `field` is what would do."""

    field = "reference"

    def __init__(self) -> None:
        super().__init__(
            "a single reply cannot be judged by itself: send a reference, a rubric or a rival with it,"
            " or several replies to the same prompt in one call"
        )


@dataclass(frozen=True, slots=True)
class Criterion:
    """What replies are held against; at most one. Empty: against each other."""

    basis: Basis = "group"
    text: str = ""

    @classmethod
    def of(cls, reference: str | None, rubric: str | None, rival: str | None) -> Self:
        """The first of the three that says something."""
        given: tuple[tuple[Basis, str | None], ...] = (("reference", reference), ("rubric", rubric), ("rival", rival))
        return next((cls(basis, text) for basis, text in given if text and text.strip()), cls())

    @property
    def kind(self) -> Kind:
        """What the judge is asked on this basis."""
        return self.basis if self.basis in ("reference", "rubric") else "pair"

    def comparison(self, query: str, reply: str) -> JudgeComparison:
        """The question to the judge about one reply."""
        if self.kind == "pair":
            return JudgeComparison("pair", query, reply, self.text)
        return JudgeComparison(self.kind, query, reply, against=self.text)


@dataclass(frozen=True, slots=True)
class Scores:
    """One score a reply, in order; None where no vote on it held a verdict. A group's verdicts are in `ranking`, all
    others in `verdicts`."""

    values: list[float | None]
    basis: Basis
    verdicts: list[Verdict]
    ranking: Ranking | None = None

    @property
    def votes(self) -> list[Vote]:
        return self.ranking.votes if self.ranking else [vote for verdict in self.verdicts for vote in verdict.votes]


async def score(
    judge: Judge,
    query: str,
    replies: Sequence[str],
    params: JudgeParams,
    rules: TournamentRules,
    criterion: Criterion,
    notify: Notify = ignore,
) -> Scores:
    """Scores of all replies; none for no replies. A group's are chances against a rival drawn from the others;
    against a reference or a rubric, the share of votes for the reply; against a rival, whether it won (1, 1/2 or 0).
    """
    criterion = criterion_for(judge, criterion, len(replies))
    if criterion.basis == "group":
        if not replies:
            return Scores([], "group", [])
        ranking = await rank(judge, query, replies, params, rules, notify)
        return Scores([*(ranking.scores or ())], "group", [], ranking)
    numbers = count(1)

    async def compare(index: int) -> Verdict:
        verdict = await judge.compare(criterion.comparison(query, replies[index]), params)
        notify(RankingProgress(next(numbers), len(replies), (index,), verdict))
        return verdict

    works = [partial(compare, index) for index in range(len(replies))]
    verdicts = await gather_bounded(judge.max_comparisons(params, criterion.kind), works)
    return Scores([_score(verdict, criterion.basis) for verdict in verdicts], criterion.basis, verdicts)


def criterion_for(judge: Judge, criterion: Criterion, replies: int) -> Criterion:
    """What so many replies are held against: a single one that comes without anything, against the judge's own rubric.

    Raises `NothingToJudgeBy` where it has none.
    """
    if criterion.basis != "group" or replies != 1:
        return criterion
    if not judge.settings.rubric:
        raise NothingToJudgeBy
    return Criterion("rubric", judge.settings.rubric)


def _score(verdict: Verdict, basis: Basis) -> float | None:
    """A single reply's reward. None: no vote held a verdict."""
    if not verdict.known:
        return None
    return verdict.share if basis == "rival" else verdict.count.first / (verdict.count.first + verdict.count.second)
