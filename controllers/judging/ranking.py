"""Several replies to one query, ranked or rated by a judge: a tournament, all matches of a round in flight together."""

import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from controllers.concurrency import gather_bounded, with_progress
from controllers.judging.judge import Judge, JudgeParams, Verdict
from controllers.judging.tournament import (
    ELO_SCALE,
    Match,
    Method,
    Rating,
    best_first,
    bradley_terry,
    captain,
    elo,
    knockout,
    matches_of,
    round_robin,
    teams,
    win_rates,
)
from controllers.judging.verdicts import JudgeComparison, final_answer


@dataclass(frozen=True, slots=True)
class Rules:
    """How the tournament is played. With `teams`, replies with the same final answer play as one, by a drawn member."""

    method: Method = "round_robin"
    rating: Rating = "bradley_terry"
    elo_k: float = 32.0
    elo_start: float = 1000.0
    teams: bool = False

    def playing(self, replies: Sequence[str]) -> list[tuple[int, ...]]:
        """The teams that play, of one reply each unless `teams`."""
        return teams([final_answer(reply) if self.teams else i for i, reply in enumerate(replies)])


@dataclass(frozen=True, slots=True)
class Played:
    """One match and the verdict behind it, by the numbers of the replies."""

    match: Match
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RankingProgress:
    """A comparison has ended: number `done` of the `of` that there are in all. `replies` are those that it was about;
    rounds of a tournament count from 1."""

    done: int
    of: int
    replies: tuple[int, ...]
    verdict: Verdict
    round: int = 1


@dataclass(frozen=True, slots=True)
class Ranking:
    """The outcome. `order` is best first. A knockout finds the best and rates nobody: `ratings` and `scores` are None.

    `scores` are chances between 0 and 1 against a rival drawn from the others. A reply of which no vote said anything
    has neither rating nor score (None), and comes last.
    """

    order: list[int]
    teams: list[tuple[int, ...]]
    rounds: list[list[Played]]
    ratings: list[float | None] | None = None
    scores: list[float | None] | None = None

    @property
    def played(self) -> list[Played]:
        """The comparisons of all rounds, in order."""
        return [one for games in self.rounds for one in games]


Notify = Callable[[RankingProgress], None]


def unheard(progress: RankingProgress) -> None:
    """Nobody listens."""


async def rank(
    judge: Judge, query: str, replies: Sequence[str], terms: JudgeParams, rules: Rules, notify: Notify = unheard
) -> Ranking:
    """Plays a tournament between replies. Raises what the judge's engine raises."""
    playing = rules.playing(replies)
    captains = [captain(team, replies, terms.seed) for team in playing]
    games = _Games(judge, query, replies, captains, terms, matches_of(rules.method, len(playing)), notify)
    if rules.method == "knockout":
        order, rounds = await _knockout(games, terms.seed)
        return Ranking(_members(order, playing), playing, rounds)
    by_team, played = await _round_robin(games, rules)
    ratings = [0.0] * len(replies)
    for team, rating in zip(playing, by_team, strict=True):
        for member in team:
            ratings[member] = rating
    rates = win_rates(ratings, ELO_SCALE if rules.rating == "elo" else 1.0)
    unjudged = _unjudged(games.captains, played)
    order = best_first([-math.inf if team in unjudged else rating for team, rating in enumerate(by_team)])
    without = {member for team in unjudged for member in playing[team]}

    def known(values: Sequence[float]) -> list[float | None]:
        return [None if i in without else value for i, value in enumerate(values)]

    return Ranking(_members(order, playing), playing, [played], known(ratings), known(rates))


def ranked(
    judge: Judge, query: str, replies: Sequence[str], terms: JudgeParams, rules: Rules
) -> AsyncGenerator[RankingProgress | Ranking, None]:
    """The progress of `rank` while it is made, then the ranking."""

    def work(tell: Notify) -> Coroutine[Any, Any, Ranking]:
        return rank(judge, query, replies, terms, rules, tell)

    return with_progress(work)


@dataclass(frozen=True, slots=True)
class _Games:
    """The comparisons of one tournament, `of` in all. `captains[i]` is the reply that plays for team i."""

    judge: Judge
    query: str
    replies: Sequence[str]
    captains: Sequence[int]
    terms: JudgeParams
    of: int
    notify: Notify
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def play(self, number: int, pairings: Sequence[tuple[int, int]]) -> list[Played]:
        """One round of teams, its comparisons in flight together."""

        async def one(first: int, second: int) -> Played:
            comparison = JudgeComparison("pair", self.query, self.replies[first], self.replies[second])
            verdict = await self.judge.compare(comparison, self.terms)
            self.notify(RankingProgress(next(self.numbers), self.of, (first, second), verdict, number))
            return Played(Match(first, second, verdict.share), verdict)

        works = [partial(one, self.captains[first], self.captains[second]) for first, second in pairings]
        return await gather_bounded(self.judge.abreast(self.terms, "pair"), works)


async def _knockout(games: _Games, seed: int) -> tuple[list[int], list[list[Played]]]:
    """Teams, best first, and the rounds."""
    bracket = knockout(len(games.captains), seed)
    rounds: list[list[Played]] = []
    while pairings := bracket.pairings:
        played = await games.play(len(rounds) + 1, pairings)
        bracket = bracket.after([one.match.share for one in played])
        lots = [match.by_lot for match in bracket.rounds[-1]]
        rounds.append(
            [replace(one, match=replace(one.match, by_lot=lot)) for one, lot in zip(played, lots, strict=True)]
        )
    return bracket.order, rounds


async def _round_robin(games: _Games, rules: Rules) -> tuple[list[float], list[Played]]:
    """The teams' ratings, and the matches."""
    pairings = round_robin(len(games.captains))
    played = await games.play(1, pairings)
    matches = [Match(*pairing, one.match.share) for pairing, one in zip(pairings, played, strict=True)]
    if rules.rating == "elo":
        return elo(len(games.captains), matches, rules.elo_k, rules.elo_start), played
    return bradley_terry(len(games.captains), matches), played


def _unjudged(captains: Sequence[int], played: Sequence[Played]) -> set[int]:
    """Teams that met others, and no vote in all these matches said anything. To have met the same text says nothing."""
    said: dict[int, bool] = {}
    for one in played:
        if one.verdict.identical:
            continue
        for reply in (one.match.first, one.match.second):
            said[reply] = said.get(reply, False) or one.verdict.known
    return {team for team, reply in enumerate(captains) if not said.get(reply, True)}


def _members(order: Sequence[int], playing: Sequence[tuple[int, ...]]) -> list[int]:
    return [member for team in order for member in playing[team]]
