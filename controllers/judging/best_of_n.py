"""Best of n: n replies are drawn side by side, a judge ranks them by knockout, and the winner is the reply.

While replies are drawn and ranked there is nothing to show, so the client hears of progress; then the winner comes,
with the bracket in its record. Its tokens are the reply's; the others' are counted apart, and so are the judge's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from controllers.concurrency import merge
from controllers.generation.deltas import cancellable
from controllers.generation.events import Conversation, Decision, Event, Finished, Progress, Working
from controllers.judging.judge import Judge
from controllers.judging.ranking import Ranking, Rules, ranked
from controllers.policy.fold import Policy
from controllers.route import Controller, Route
from models.engines.base import Sampling
from models.formats.chunks import Chunk

STRIDE = 128  # between the seeds of the n replies: more than the choices that one request can have


def ranked_by(judge: Judge, controller: Controller) -> Controller:
    """A controller that draws `policy.best_of` replies from `controller` and yields the best."""

    async def run(
        route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> AsyncGenerator[Event, None]:
        if policy.best_of == 1:
            async with aclosing(controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        drawn = [_Drawn() for _ in range(policy.best_of)]
        runs = [controller(route, request, policy, _seeded(sampling, i)) for i in range(policy.best_of)]
        async with aclosing(merge(runs)) as events:
            async for index, event in events:
                drawn[index].add(event)
                if isinstance(event, Finished):
                    yield Working({"drawn": sum(one.complete for one in drawn), "of": len(drawn)})
        playing = [i for i, one in enumerate(drawn) if one.answer] or [0]  # an empty answer cannot be the best
        if request.cancelled:
            playing = playing[:1]  # whoever has ended the request waits for no judge
        ranking = Ranking([0], [], [])
        query, answers = text_of(request.messages), [drawn[i].answer for i in playing]
        rules = Rules("knockout", teams=judge.teams)
        terms = judge.terms(seed=sampling.seed or 0, key=policy.key)
        tournament = ranked(judge, query, answers, terms, rules)
        async with aclosing(cancellable(tournament, request.interrupt)) as told:
            async for said in told:
                if isinstance(said, Ranking):
                    ranking = said
                else:
                    yield Working({"round": said.round, "compared": said.done, "of": said.of})
        winner = playing[ranking.order[0]]
        record = _record(judge, drawn, playing, winner, ranking)
        for event in drawn[winner].events:
            yield _recorded(event, record)

    return run


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as the query of a comparison: one turn by itself is its text, several are named."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{str(message['role']).capitalize()}: {message['content']}" for message in messages)


class _Drawn:
    """One of the n replies."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        """Keeps what the winner will say; how long it was going to take is of no use by then."""
        if isinstance(event, Decision):
            event = replace(event, seconds_to_answer=None)
        if not isinstance(event, Progress):
            self.events.append(event)

    @property
    def complete(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    @property
    def answer(self) -> str:
        """What there is to judge: the text, and the calls with their arguments."""
        chunks = (event for event in self.events if isinstance(event, Chunk) and event.kind in ("answer", "tool"))
        return "".join(_written(chunk) for chunk in chunks).strip()

    @property
    def tokens(self) -> int:
        return sum(len(event.token_ids) for event in self.events if isinstance(event, Chunk))


def _written(chunk: Chunk) -> str:
    return chunk.text if chunk.call is None or chunk.call.name is None else f"\n{chunk.call.name} {chunk.text}"


def _seeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + STRIDE * index)


def _recorded(event: Event, record: Mapping[str, Any]) -> Event:
    return replace(event, more={**event.more, "best_of": record}) if isinstance(event, Finished) else event


def _record(
    judge: Judge, drawn: Sequence[_Drawn], playing: Sequence[int], winner: int, ranking: Ranking
) -> dict[str, Any]:
    ballots = [ballot for one in ranking.played for ballot in one.verdict.ballots]
    return {
        "n": len(drawn),
        "winner": winner,
        "judge": judge.route.name,
        "bracket": [
            [
                {
                    "replies": [playing[one.match.first], playing[one.match.second]],
                    "votes": [one.verdict.vote.first, one.verdict.vote.second],
                    "by_lot": one.match.by_lot,
                }
                for one in played
            ]
            for played in ranking.rounds
        ],
        "discarded_tokens": sum(one.tokens for i, one in enumerate(drawn) if i != winner),
        "judge_tokens": sum(ballot.completion_tokens for ballot in ballots),
    }
