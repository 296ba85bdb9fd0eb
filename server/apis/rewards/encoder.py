"""Verdicts and rankings as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controllers.judging.judge import JudgeReply, Verdict
from controllers.judging.ranking import Ranking, RankingProgress
from controllers.judging.tournament import Vote


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """`winner` is 0 or 1, or null where nobody won; votes that the rest could not change were not cast."""
    answer: dict[str, Any] = {
        "winner": verdict.winner,
        "votes": votes_json(verdict.vote),
        "ballots": [ballot_json(ballot) for ballot in verdict.ballots],
    }
    return {**answer, "identical": True} if verdict.identical else answer


def ballot_json(ballot: JudgeReply) -> dict[str, Any]:
    answer: dict[str, Any] = {"verdict": ballot.side}
    if ballot.cached:
        return {**answer, "cached": True}
    answer |= {"swapped": ballot.swapped, "tries": ballot.tries}
    if ballot.side is None:
        answer["abstained"] = f"no verdict in {ballot.tries} replies"
    if ballot.reasoning is not None:
        answer["reasoning"] = ballot.reasoning
    return answer


def ranking_json(outcome: Ranking) -> dict[str, Any]:
    """`ranks` start at 1, and members of a team share theirs."""
    place = {member: 1 + min(map(outcome.order.index, team)) for team in outcome.teams for member in team}
    return {
        "order": outcome.order,
        "ranks": [place[i] for i in range(len(outcome.order))],
        "ratings": outcome.ratings,
        "scores": outcome.scores,
        "teams": outcome.teams,
        "bracket": [
            [
                {
                    "replies": [one.match.first, one.match.second],
                    "by_lot": one.match.by_lot,
                    **verdict_json(one.verdict),
                }
                for one in played
            ]
            for played in outcome.rounds
        ],
    }


def progress(said: RankingProgress) -> dict[str, Any]:
    verdict = said.verdict
    told = {"round": said.round, "done": said.done, "of": said.of, "replies": said.replies, "winner": verdict.winner}
    return {**told, "votes": votes_json(verdict.vote)}


def votes_json(vote: Vote) -> dict[str, int]:
    return {"first": vote.first, "second": vote.second, "abstained": vote.abstained, "of": vote.k}


def usage(ballots: Sequence[JudgeReply]) -> dict[str, int]:
    """Every token that the judge read and wrote for these votes; remembered ones cost none."""
    prompt = sum(ballot.prompt_tokens for ballot in ballots)
    completion = sum(ballot.completion_tokens for ballot in ballots)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "reasoning_tokens": sum(ballot.reasoning_tokens for ballot in ballots),
    }


def event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
