"""Tournaments between replies: votes, knockout, round robin, ratings, teams. Pure, and the same for the same seed.

Replies are numbers from 0. The result of a match is the share of the first: 1.0 it won, 0.0 the second did, 0.5 nobody.
Knockout takes O(n) comparisons in O(log n) rounds and finds the best; a round robin takes O(n²) and rates them all
(arXiv 2505.14674).
"""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations
from typing import Literal

Method = Literal["round_robin", "knockout"]
Rating = Literal["bradley_terry", "elo"]
Side = Literal[0, 1]


@dataclass(frozen=True, slots=True)
class VoteCount:
    """Majority voting@k while it is counted.

    An abstention is one of the k and is for neither side. A draw or a grade is shared between the sides."""

    k: int
    first: float = 0
    second: float = 0
    abstained: int = 0

    @property
    def remaining(self) -> int:
        return self.k - round(self.first + self.second) - self.abstained

    @property
    def needed(self) -> int:
        """The fewest further votes that could decide: asked for at once, none of them can turn out superfluous. 0: no
        votes that are still to come can change the outcome."""
        lead = abs(self.first - self.second)
        return 0 if lead > self.remaining or not self.remaining else int((self.remaining - lead) // 2) + 1

    @property
    def winner(self) -> Side | None:
        if self.first == self.second:
            return None
        return 0 if self.first > self.second else 1

    def counted(self, share: float | None) -> "VoteCount":
        """With one more vote, of which the first side has `share`. None: an abstention."""
        if share is None:
            return replace(self, abstained=self.abstained + 1)
        return replace(self, first=self.first + share, second=self.second + 1 - share)


@dataclass(frozen=True, slots=True)
class Match:
    """Two that met, and the share of the first. `by_lot` says that nobody won and the seed chose who goes on."""

    first: int
    second: int
    share: float
    by_lot: bool = False


@dataclass(frozen=True, slots=True)
class Bracket:
    """A knockout between two rounds. `standing` are those still in it, in bracket order; `rounds` what was played.

    The first round leaves a power of two: as many as are needed for that, drawn by the seed, have a bye.
    """

    standing: tuple[int, ...]
    seed: int
    rounds: tuple[tuple[Match, ...], ...] = ()
    byes: tuple[int, ...] = ()  # who goes on whatever happens in this round

    @property
    def pairings(self) -> list[tuple[int, int]]:
        """Who meets whom in the next round. Empty: the first of `standing` has won."""
        playing = self.standing[len(self.byes) :]
        return [(playing[i], playing[i + 1]) for i in range(0, len(playing) - 1, 2)]

    def after(self, shares: Sequence[float]) -> "Bracket":
        """The bracket when the present round's matches, in the order of `pairings`, have ended with these shares."""
        played: list[Match] = []
        winners: list[int] = []
        for (first, second), share in zip(self.pairings, shares, strict=True):
            lot = share == 0.5
            heads = lot and random.Random(f"{self.seed}/{len(self.rounds)}/{len(played)}").random() < 0.5
            played.append(Match(first, second, share, by_lot=lot))
            winners.append(first if share > 0.5 or heads else second)
        return Bracket((*self.byes, *winners), self.seed, (*self.rounds, tuple(played)))

    @property
    def order(self) -> list[int]:
        """Best first: later losers before earlier ones, of one round those who lost to the better opponent."""
        order = list(self.standing)
        for played in reversed(self.rounds):
            pairs = [(m.first, m.second) if m.first in order else (m.second, m.first) for m in played]
            order += [loser for _, loser in sorted(pairs, key=lambda pair: order.index(pair[0]))]
        return order


def knockout(n: int, seed: int) -> Bracket:
    """The bracket of `n` replies, drawn by the seed, before its first round."""
    drawn = list(range(n))
    random.Random(seed).shuffle(drawn)
    byes = (1 << (n - 1).bit_length()) - n if n > 1 else 1
    return Bracket(tuple(drawn), seed, byes=tuple(drawn[:byes]))


def matches_of(method: Method, n: int) -> int:
    """How many matches a tournament of n takes in all."""
    return max(0, n - 1) if method == "knockout" else n * (n - 1) // 2


def max_parallel(method: Method, n: int) -> int:
    """The most matches of a tournament of n that are in flight together."""
    return n // 2 if method == "knockout" else matches_of(method, n)


def round_robin(n: int) -> list[tuple[int, int]]:
    """Every pair once."""
    return list(combinations(range(n), 2))


def elo(n: int, matches: Sequence[Match], k: float = 32.0, start: float = 1000.0) -> list[float]:
    """Elo ratings after one rating period: all expectations are those of equal ratings, so the order of the matches
    does not matter. R = start + k · Σ (share − 1/2).
    """
    gained: list[list[float]] = [[] for _ in range(n)]
    for match in matches:
        gained[match.first].append(match.share - 0.5)
        gained[match.second].append(0.5 - match.share)
    return [start + k * math.fsum(shares) for shares in gained]


PRIOR = 0.5  # won and lost against an imagined reply of rating 0: keeps the rating of one that never lost finite
DIGITS = 12  # of ratings and chances behind the point: what different processors agree upon
TOLERANCE = 1e-8  # of a step of Newton's method: the error behind it is about its square
LONGEST_STEP = 2.0
MAX_STEPS = 100


def bradley_terry(n: int, matches: Sequence[Match]) -> list[float]:
    """Ratings in natural logarithms of odds: P(i beats j) = 1 / (1 + exp(r_j − r_i)), a share of 1/2 is half a win.

    The maximum of the Bradley-Terry likelihood with a weak prior around 0, by Newton's method. Neither the order of the
    replies nor that of the matches changes it.
    """
    import numpy as np  # which only a rated tournament needs

    won = np.zeros((n + 1, n + 1))  # [i, j]: of i over j; the last one is the imagined reply
    won[:n, n] = won[n, :n] = PRIOR
    for match in matches:
        won[match.first, match.second] += match.share
        won[match.second, match.first] += 1.0 - match.share
    games, ratings = won + won.T, np.zeros(n + 1)
    longest, steps = math.inf, 0
    while longest > TOLERANCE and steps < MAX_STEPS:
        expected = 1.0 / (1.0 + np.exp(ratings - ratings[:, None]))
        weight = games * expected * (1.0 - expected)
        slope, curvature = (won - games * expected).sum(axis=1), np.diag(weight.sum(axis=1)) - weight
        step = np.linalg.solve(curvature[:n, :n], slope[:n])
        longest = np.abs(step).max(initial=0.0)
        ratings[:n] += step * LONGEST_STEP / max(longest, LONGEST_STEP)
        steps += 1
    return [round(float(rating), DIGITS) + 0.0 for rating in ratings[:n]]  # and no -0.0


def win_rates(ratings: Sequence[float], scale: float = 1.0) -> list[float]:
    """Each one's chance, by the ratings, against a rival drawn from the others: a reward between 0 and 1.

    `scale` is the rating difference that makes odds of e: 1 for Bradley-Terry, `ELO_SCALE` for Elo.
    """
    rivals = len(ratings) - 1
    sums = [
        math.fsum(_logistic((mine - other) / scale) for j, other in enumerate(ratings) if j != i)
        for i, mine in enumerate(ratings)
    ]
    return [round(total / rivals, DIGITS) for total in sums]


ELO_SCALE = 400.0 / math.log(10.0)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def best_first(ratings: Sequence[float]) -> list[int]:
    """Replies by rating; those whose ratings agree to nine digits stay in the order in which they came."""
    return sorted(range(len(ratings)), key=lambda i: (-round(ratings[i], 9), i))


def teams(answers: Sequence[Hashable]) -> list[tuple[int, ...]]:
    """Replies with the same final answer, as one team each, in the order of their first member."""
    members: dict[Hashable, list[int]] = {}
    for i, answer in enumerate(answers):
        members.setdefault(answer, []).append(i)
    return [tuple(team) for team in members.values()]


def captain(team: Sequence[int], texts: Sequence[str], seed: int) -> int:
    """The member that plays for its team, drawn by the seed and the texts alone: whatever their order, the same text
    plays."""
    return min(team, key=lambda member: sha256(f"{seed}/{texts[member]}".encode("utf-8", "surrogatepass")).digest())
