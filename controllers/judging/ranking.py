"""Several replies to one query, ranked or rated by a judge: a tournament, all matches of a round in flight together."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from controllers.concurrency import gather_bounded
from controllers.judging.judge import Judge, JudgeParams, Verdict, Vote, ignore
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
class TournamentRules:
    """How a tournament is played. With `teams`, replies with the same final answer play as one, by a drawn member."""

    method: Method = "round_robin"
    rating: Rating = "bradley_terry"
    elo_k: float = 32.0
    elo_start: float = 1000.0
    teams: bool = False

    def playing(self, replies: Sequence[str]) -> list[tuple[int, ...]]:
        """The teams that play, of one reply each unless `teams`."""
        return teams([final_answer(reply) if self.teams else i for i, reply in enumerate(replies)])


@dataclass(frozen=True, slots=True)
class JudgedMatch:
    """One match and the verdict behind it."""

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
    has neither rating nor score (None), and comes last. The matches of `rounds` name replies.
    """

    order: list[int]
    teams: list[tuple[int, ...]]
    rounds: list[list[JudgedMatch]]
    ratings: list[float | None] | None = None
    scores: list[float | None] | None = None

    @property
    def matches(self) -> list[JudgedMatch]:
        """Those of all rounds, in order."""
        return [match for matches in self.rounds for match in matches]

    @property
    def votes(self) -> list[Vote]:
        return [vote for match in self.matches for vote in match.verdict.votes]


Notify = Callable[[RankingProgress], None]
Play = Callable[[int, Sequence[tuple[int, int]]], Awaitable[list[Verdict]]]
"""Judges one round, by its number and its pairings of teams."""


async def rank(
    judge: Judge,
    query: str,
    replies: Sequence[str],
    params: JudgeParams,
    rules: TournamentRules,
    notify: Notify = ignore,
) -> Ranking:
    """Plays a tournament between replies. Raises what the judge's engine raises."""
    playing = rules.playing(replies)
    captains = [captain(team, replies, params.seed) for team in playing]
    total, numbers = matches_of(rules.method, len(playing)), count(1)

    async def compare(number: int, first: int, second: int) -> Verdict:
        verdict = await judge.compare(JudgeComparison("pair", query, replies[first], replies[second]), params)
        notify(RankingProgress(next(numbers), total, (first, second), verdict, number))
        return verdict

    async def play(number: int, pairings: Sequence[tuple[int, int]]) -> list[Verdict]:
        works = [partial(compare, number, captains[first], captains[second]) for first, second in pairings]
        return await gather_bounded(judge.max_comparisons(params, "pair"), works)

    if rules.method == "knockout":
        outcome = await _knockout(len(playing), play, params.seed)
    else:
        outcome = await _round_robin(playing, play, rules)
    return replace(
        outcome,
        order=[member for team in outcome.order for member in playing[team]],
        teams=playing,
        rounds=[[_by_reply(one, captains) for one in matches] for matches in outcome.rounds],
    )


def _by_reply(one: JudgedMatch, captains: Sequence[int]) -> JudgedMatch:
    match = one.match
    return replace(one, match=replace(match, first=captains[match.first], second=captains[match.second]))


async def _knockout(n: int, play: Play, seed: int) -> Ranking:
    """The outcome, with teams where `Ranking` has replies."""
    bracket = knockout(n, seed)
    rounds: list[list[JudgedMatch]] = []
    while pairings := bracket.pairings:
        verdicts = await play(len(rounds) + 1, pairings)
        bracket = bracket.after([verdict.share for verdict in verdicts])
        rounds.append(list(map(JudgedMatch, bracket.rounds[-1], verdicts)))
    return Ranking(bracket.order, [], rounds)


async def _round_robin(playing: Sequence[Sequence[int]], play: Play, rules: TournamentRules) -> Ranking:
    """The outcome, with teams where `Ranking` has replies, but for the ratings and scores."""
    pairings = round_robin(len(playing))
    verdicts = await play(1, pairings)
    matches = [Match(*pairing, verdict.share) for pairing, verdict in zip(pairings, verdicts, strict=True)]
    elo_rated = rules.rating == "elo"
    by_team = (
        elo(len(playing), matches, rules.elo_k, rules.elo_start) if elo_rated else bradley_terry(len(playing), matches)
    )
    judged = list(map(JudgedMatch, matches, verdicts))
    unjudged = _unjudged(judged)
    order = best_first([-math.inf if team in unjudged else rating for team, rating in enumerate(by_team)])
    team_of = [team for _, team in sorted((member, team) for team, of in enumerate(playing) for member in of)]
    ratings = [by_team[team] for team in team_of]
    rates = win_rates(ratings, ELO_SCALE if elo_rated else 1.0)

    def known(values: Sequence[float]) -> list[float | None]:
        return [None if team in unjudged else value for team, value in zip(team_of, values, strict=True)]

    return Ranking(order, [], [judged], known(ratings), known(rates))


def _unjudged(matches: Sequence[JudgedMatch]) -> set[int]:
    """Teams that met others, and no vote in all these matches said anything. To have met the same text says nothing."""
    met = {
        (team, one.verdict.known)
        for one in matches
        if not one.verdict.identical
        for team in (one.match.first, one.match.second)
    }
    return {team for team, _ in met} - {team for team, known in met if known}
