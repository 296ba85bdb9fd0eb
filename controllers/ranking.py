"""Several replies to one query, ranked or rated by a judge: a tournament, all matches of a round in flight together."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from controllers.choices import narrated, together
from controllers.judge import Judge, Terms, Verdict
from controllers.tournament import (
    ELO_SCALE,
    Match,
    Rating,
    best_first,
    bradley_terry,
    captain,
    elo,
    knockout,
    round_robin,
    teams,
    win_rates,
)
from controllers.verdicts import Comparison, final_answer

Method = Literal["round_robin", "knockout"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How the tournament is played. With `teams`, replies with the same final answer play as one, by a drawn member."""

    method: Method = "round_robin"
    rating: Rating = "bradley_terry"
    elo_k: float = 32.0
    elo_start: float = 1000.0
    teams: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """One match and the verdict behind it, by the numbers of the replies."""

    match: Match
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Progress:
    """A comparison has ended: number `done` of the `of` of this round (from 1)."""

    round: int
    done: int
    of: int
    played: Played


@dataclass(frozen=True, slots=True)
class Ranking:
    """The outcome. `order` is best first. A knockout finds the best and rates nobody: `ratings` and `scores` are None.

    `scores` are chances between 0 and 1 against a rival drawn from the others.
    """

    order: list[int]
    teams: list[tuple[int, ...]]
    rounds: list[list[Played]]
    ratings: list[float] | None = None
    scores: list[float] | None = None


Notify = Callable[[Progress], None]


def unheard(progress: Progress) -> None:
    """Nobody listens."""


async def rank(
    judge: Judge, query: str, replies: Sequence[str], terms: Terms, rules: Rules, notify: Notify = unheard
) -> Ranking:
    """Plays a tournament between replies. Raises what the judge's engine raises."""
    playing = teams([final_answer(reply) if rules.teams else i for i, reply in enumerate(replies)])
    games = _Games(judge, query, replies, [captain(team, terms.seed) for team in playing], terms, notify)
    if rules.method == "knockout":
        order, rounds = await _knockout(games, terms.seed)
        return Ranking(_members(order, playing), playing, rounds)
    by_team, played = await _round_robin(games, rules)
    ratings = [0.0] * len(replies)
    for team, rating in zip(playing, by_team, strict=True):
        for member in team:
            ratings[member] = rating
    scale = ELO_SCALE if rules.rating == "elo" else 1.0
    order = _members(best_first(by_team), playing)
    return Ranking(order, playing, [played], ratings, win_rates(ratings, scale))


def ranked(
    judge: Judge, query: str, replies: Sequence[str], terms: Terms, rules: Rules
) -> AsyncGenerator[Progress | Ranking, None]:
    """The progress of `rank` while it is made, then the ranking."""

    def work(tell: Notify) -> Coroutine[Any, Any, Ranking]:
        return rank(judge, query, replies, terms, rules, tell)

    return narrated(work)


@dataclass(frozen=True, slots=True)
class _Games:
    """The comparisons of one tournament. `captains[i]` is the number of the reply that plays for team i."""

    judge: Judge
    query: str
    replies: Sequence[str]
    captains: Sequence[int]
    terms: Terms
    notify: Notify

    async def play(self, number: int, pairings: Sequence[tuple[int, int]]) -> list[Played]:
        """One round of teams, its comparisons in flight together."""
        done = 0

        async def one(first: int, second: int) -> Played:
            nonlocal done
            comparison = Comparison("pair", self.query, self.replies[first], self.replies[second])
            verdict = await self.judge.compare(comparison, self.terms)
            played = Played(Match(first, second, verdict.share), verdict)
            done += 1
            self.notify(Progress(number, done, len(pairings), played))
            return played

        return await together([one(self.captains[first], self.captains[second]) for first, second in pairings])


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


def _members(order: Sequence[int], playing: Sequence[tuple[int, ...]]) -> list[int]:
    return [member for team in order for member in playing[team]]
