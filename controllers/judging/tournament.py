"""Tournaments between replies: votes, knockout, round robin, ratings, teams. Pure, and the same for the same seed.

Replies are numbers from 0. The result of a match is the share of the first: 1.0 it won, 0.0 the second did, 0.5 nobody.
Knockout takes O(n) comparisons in O(log n) rounds and finds the best; a round robin takes O(n²) and rates them all
(arXiv 2505.14674).
"""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations
from typing import Literal

Method = Literal["round_robin", "knockout"]
Rating = Literal["bradley_terry", "elo"]
Side = Literal[0, 1]


@dataclass(frozen=True, slots=True)
class Vote:
    """Majority voting@k while it is counted. An abstention is one of the k and is for neither side."""

    k: int
    first: int = 0
    second: int = 0
    abstained: int = 0

    @property
    def left(self) -> int:
        return self.k - self.first - self.second - self.abstained

    @property
    def decided(self) -> bool:
        """Whether no votes that are still to come can change the outcome."""
        return self.left == 0 or abs(self.first - self.second) > self.left

    @property
    def wave(self) -> int:
        """The fewest further votes that could decide: asked for at once, none of them can turn out superfluous."""
        return 0 if self.decided else (self.left - abs(self.first - self.second)) // 2 + 1

    @property
    def winner(self) -> Side | None:
        if self.first == self.second:
            return None
        return 0 if self.first > self.second else 1

    def counted(self, verdict: Side | None) -> "Vote":
        return Vote(
            self.k,
            self.first + (verdict == 0),
            self.second + (verdict == 1),
            self.abstained + (verdict is None),
        )


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
    through: tuple[int, ...] = field(default=())  # who goes on whatever happens in this round: a bye

    @property
    def pairings(self) -> list[tuple[int, int]]:
        """Who meets whom in the next round. Empty: the first of `standing` has won."""
        playing = self.standing[len(self.through) :]
        return [(playing[i], playing[i + 1]) for i in range(0, len(playing) - 1, 2)]

    def after(self, shares: Sequence[float]) -> "Bracket":
        """The bracket when the present round's matches, in the order of `pairings`, have ended with these shares."""
        played: list[Match] = []
        on: list[int] = []
        for (first, second), share in zip(self.pairings, shares, strict=True):
            lot = share == 0.5
            coin = random.Random(f"{self.seed}/{len(self.rounds)}/{len(played)}").random() < 0.5 if lot else False
            played.append(Match(first, second, share, by_lot=lot))
            on.append(first if share > 0.5 or coin else second)
        return Bracket((*self.through, *on), self.seed, (*self.rounds, tuple(played)))

    @property
    def order(self) -> list[int]:
        """Best first: later losers before earlier ones, of one round those who lost to the better opponent."""
        order = list(self.standing)
        for played in reversed(self.rounds):
            lost_to = {loser: other for match in played for other, loser in _who_went_on(match, order)}
            order += sorted(lost_to, key=lambda loser: order.index(lost_to[loser]))
        return order


def _who_went_on(match: Match, order: Sequence[int]) -> list[tuple[int, int]]:
    first_on = match.first in order
    return [(match.first, match.second) if first_on else (match.second, match.first)]


def knockout(n: int, seed: int) -> Bracket:
    """The bracket of `n` replies, drawn by the seed, before its first round."""
    drawn = list(range(n))
    random.Random(seed).shuffle(drawn)
    byes = (1 << (n - 1).bit_length()) - n if n > 1 else 1
    return Bracket(tuple(drawn), seed, through=tuple(drawn[:byes]))


def matches_of(method: Method, n: int) -> int:
    """How many matches a tournament of n takes in all."""
    return max(0, n - 1) if method == "knockout" else n * (n - 1) // 2


def abreast_of(method: Method, n: int) -> int:
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
TOLERANCE = 1e-10
LONGEST_STEP = 2.0
MOST_STEPS = 100


def bradley_terry(n: int, matches: Sequence[Match]) -> list[float]:
    """Ratings in natural logarithms of odds: P(i beats j) = 1 / (1 + exp(r_j − r_i)), a share of 1/2 is half a win.

    The maximum of the Bradley-Terry likelihood with a weak prior around 0, by Newton's method. It is a property of the
    results alone: neither the order of the replies nor that of the matches changes it.
    """
    ratings, longest, steps = [0.0] * n, math.inf, 0
    while longest > TOLERANCE and steps < MOST_STEPS:
        step = _solve(*_slope_and_curvature(ratings, matches))
        longest = max(map(abs, step), default=0.0)
        shorter = min(1.0, LONGEST_STEP / max(longest, TOLERANCE))
        ratings = [rating + shorter * change for rating, change in zip(ratings, step, strict=True)]
        steps += 1
    return ratings


def _slope_and_curvature(ratings: Sequence[float], matches: Sequence[Match]) -> tuple[list[float], list[list[float]]]:
    """Gradient (n) of the log-likelihood and its negative Hessian (n × n)."""
    n = len(ratings)
    slope = [PRIOR - 2 * PRIOR * _logistic(rating) for rating in ratings]
    curvature = [[0.0] * n for _ in range(n)]
    for i, rating in enumerate(ratings):
        curvature[i][i] = 2 * PRIOR * _logistic(rating) * _logistic(-rating)
    for match in matches:
        i, j = match.first, match.second
        expected = _logistic(ratings[i] - ratings[j])
        slope[i] += match.share - expected
        slope[j] -= match.share - expected
        weight = expected * (1.0 - expected)
        curvature[i][i] += weight
        curvature[j][j] += weight
        curvature[i][j] -= weight
        curvature[j][i] -= weight
    return slope, curvature


def _solve(right: list[float], matrix: list[list[float]]) -> list[float]:
    """x of matrix · x = right, for a symmetric positive definite matrix (n × n). Both arguments are used up."""
    n = len(right)
    for k in range(n):
        pivot = matrix[k]
        for i in range(k + 1, n):
            row = matrix[i]
            factor = row[k] / pivot[k]
            for j in range(k + 1, n):
                row[j] -= factor * pivot[j]
            right[i] -= factor * right[k]
    for k in range(n - 1, -1, -1):
        right[k] = (right[k] - sum(matrix[k][j] * right[j] for j in range(k + 1, n))) / matrix[k][k]
    return right


def win_rates(ratings: Sequence[float], scale: float = 1.0) -> list[float]:
    """Each one's chance, by the ratings, against a rival drawn from the others: a graded reward between 0 and 1.

    `scale` is the rating difference that makes odds of e: 1 for Bradley-Terry, `ELO_SCALE` for Elo.
    """
    rivals = len(ratings) - 1
    return [
        math.fsum(_logistic((mine - other) / scale) for j, other in enumerate(ratings) if j != i) / rivals
        for i, mine in enumerate(ratings)
    ]


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
