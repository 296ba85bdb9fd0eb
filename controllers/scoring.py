"""Replies to one query as graded rewards between 0 and 1, on whatever there is to judge them by.

Several replies are judged against each other. A single one needs a reference, a rubric or a rival: without any of them
there is nothing to compare it with, and a reward is never made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from controllers.choices import together
from controllers.judge import Ballot, Judge, Terms, Verdict
from controllers.ranking import Notify, Ranking, Rules, rank, unheard
from controllers.verdicts import Comparison

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
class Yardstick:
    """What replies are held against; at most one. Empty: against each other."""

    basis: Basis = "group"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """One score a reply, in order; None where the judge abstained in every vote. `verdicts` are behind all others
    than a group's, whose tournament is in `ranking`.
    """

    values: list[float | None]
    basis: Basis
    verdicts: list[Verdict]
    ranking: Ranking | None = None

    @property
    def ballots(self) -> list[Ballot]:
        played = [one.verdict for games in self.ranking.rounds for one in games] if self.ranking else []
        return [ballot for verdict in (*self.verdicts, *played) for ballot in verdict.ballots]


async def score(
    judge: Judge,
    query: str,
    replies: Sequence[str],
    terms: Terms,
    rules: Rules,
    yardstick: Yardstick,
    notify: Notify = unheard,
) -> Scores:
    """Scores of all replies; none for no replies. A group's are chances against a rival drawn from the others;
    against a reference or a rubric, the share of votes for the reply; against a rival, whether it won (1, 1/2 or 0).
    """
    require(yardstick, len(replies))
    if yardstick.basis == "group":
        if not replies:
            return Scores([], "group", [])
        ranking = await rank(judge, query, replies, terms, rules, notify)
        return Scores([*(ranking.scores or ())], "group", [], ranking)
    comparisons = [_against(yardstick, query, reply) for reply in replies]
    verdicts = await together([judge.compare(comparison, terms) for comparison in comparisons])
    return Scores([value_of(verdict, yardstick.basis) for verdict in verdicts], yardstick.basis, verdicts)


def require(yardstick: Yardstick, replies: int) -> None:
    """Raises `NothingToJudgeBy` for a single reply without anything beside it."""
    if yardstick.basis == "group" and replies == 1:
        raise NothingToJudgeBy


def _against(yardstick: Yardstick, query: str, reply: str) -> Comparison:
    if yardstick.basis == "reference":
        return Comparison("reference", query, reply, against=yardstick.text)
    if yardstick.basis == "rubric":
        return Comparison("rubric", query, reply, against=yardstick.text)
    return Comparison("pair", query, reply, yardstick.text)


def value_of(verdict: Verdict, basis: Basis) -> float | None:
    """A single reply's reward. None: no vote held a verdict."""
    if basis == "rival":
        return verdict.share
    cast = verdict.vote.first + verdict.vote.second
    return verdict.vote.first / cast if cast else None
