"""Verdicts and rankings as JSON."""

from collections.abc import Mapping
from typing import Any

import orjson

from controllers.judging.judge import Verdict, Vote
from controllers.judging.ranking import Ranking, RankingProgress
from controllers.judging.tournament import VoteCount
from server.observability.request_observer import UsageCounter


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """`winner` is 0 or 1, or null where nobody won; votes that the rest could not change were not cast."""
    answer: dict[str, Any] = {
        "winner": verdict.winner,
        "votes": count_json(verdict.count),
        "ballots": [vote_json(vote) for vote in verdict.votes],
    }
    return {**answer, "identical": True} if verdict.identical else answer


def vote_json(vote: Vote) -> dict[str, Any]:
    """`verdict` is the side that the vote is for. A grade or a draw has a `share`, the first one's of 1, beside it."""
    answer: dict[str, Any] = {"verdict": vote.side}
    if vote.share not in (None, 0, 1):
        answer["share"] = vote.share
    if vote.cached:
        return {**answer, "cached": True}
    answer |= {"swapped": vote.swapped, "tries": vote.tries}
    if vote.share is None:
        answer["abstained"] = f"no verdict in {vote.tries} replies"
    if vote.reasoning is not None:
        answer["reasoning"] = vote.reasoning
    return answer


def ranking_json(ranking: Ranking) -> dict[str, Any]:
    """`ranks` start at 1, and members of a team share theirs."""
    place = {member: 1 + min(map(ranking.order.index, team)) for team in ranking.teams for member in team}
    return {
        "order": ranking.order,
        "ranks": [place[i] for i in range(len(ranking.order))],
        "ratings": ranking.ratings,
        "scores": ranking.scores,
        "teams": ranking.teams,
        "bracket": [
            [
                {
                    "replies": [one.match.first, one.match.second],
                    "by_lot": one.match.by_lot,
                    **verdict_json(one.verdict),
                }
                for one in matches
            ]
            for matches in ranking.rounds
        ],
    }


def progress(event: RankingProgress) -> dict[str, Any]:
    return {
        "round": event.round,
        "done": event.done,
        "of": event.of,
        "replies": event.replies,
        "winner": event.verdict.winner,
        "votes": count_json(event.verdict.count),
    }


def count_json(count: VoteCount) -> dict[str, float]:
    return {"first": count.first, "second": count.second, "abstained": count.abstained, "of": count.k}


def usage(counted: UsageCounter) -> dict[str, int]:
    """Every token that the judge read and wrote; remembered votes cost none."""
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "reasoning_tokens": counted.reasoning_tokens,
    }


def event_frame(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
