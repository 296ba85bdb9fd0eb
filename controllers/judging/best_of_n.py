"""Best of n: n replies are drawn side by side, a judge ranks them by knockout, and the winner is the reply.

While replies are drawn and ranked there is nothing to show, so the client gets progress events; then the winner comes,
with the bracket in its record. Its tokens are the reply's; the others' are counted apart, and so are the judge's.

No more replies are drawn at once for one route than the judge has slots, and requests get free slots in turn.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from controllers.concurrency import FairSemaphore, gather, with_progress
from controllers.generation.deltas import next_item
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt, Progress, Working
from controllers.generation.route import Controller, Route
from controllers.judging.judge import Judge, JudgeParams
from controllers.judging.ranking import Ranking, RankingProgress, TournamentRules, rank
from controllers.policy.fold import Policy
from models.engines.base import Sampling
from models.formats.chunks import Chunk

T = TypeVar("T")
SEED_STRIDE = 128  # between the seeds of the n replies: more than the choices that one request can have


def best_of_controller(judge: Judge, controller: Controller) -> Controller:
    """A controller that draws `policy.best_of` replies from `controller` and yields the best."""
    slots, rules = FairSemaphore(judge.settings.concurrency), TournamentRules("knockout", teams=judge.settings.teams)

    async def run(
        route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> AsyncGenerator[Event, None]:
        if policy.best_of == 1:
            async with aclosing(controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        interrupt = request.interrupt or Interrupt()  # one for all choices of a request: together they are one caller

        async def best(notify: Callable[[Working], None]) -> list[Event]:
            numbers = count(1)

            async def draw(index: int) -> list[Event]:
                async with aclosing(_slot(slots, interrupt)) as slot:
                    await next_item(slot, interrupt)  # there is none where the client cancels: then nothing is written
                    events = await _drawn(controller(route, request, policy, _seeded(sampling, index)))
                notify(Working({"drawn": next(numbers), "of": policy.best_of}))
                return events

            drawn = await gather([draw(index) for index in range(policy.best_of)])
            answers = {index: answer for index, events in enumerate(drawn) if (answer := _answer(events))}
            ranking = Ranking([0], [], [])
            if len(answers) > 1 and not request.cancelled:  # whoever has ended the request waits for no judge
                query, params = conversation_text(request.messages), _params(judge, request, policy, sampling)
                ranked = rank(judge, query, [*answers.values()], params, rules, lambda step: notify(_compared(step)))
                async with aclosing(_once(ranked)) as rankings:
                    ranking = await next_item(rankings, interrupt) or ranking
            return _winner(judge, drawn, [*answers] or [0], ranking)  # an empty answer cannot be the best

        async with aclosing(with_progress(best)) as progress:
            async for step in progress:
                for event in [step] if isinstance(step, Working) else step:
                    yield event

    return run


def _params(judge: Judge, request: Conversation, policy: Policy, sampling: Sampling) -> JudgeParams:
    """The judge's own, with what the request says of all its engine requests."""
    params = judge.params(seed=sampling.seed or 0, key=policy.key)
    return replace(
        params,
        sampling=replace(params.sampling, priority=sampling.priority),
        request=Conversation((), cache_salt=request.cache_salt),
        caller=request.interrupt or params.caller,
    )


def conversation_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as the query of a comparison: one turn by itself is its text, several are named."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{str(message['role']).capitalize()}: {message['content']}" for message in messages)


def _compared(step: RankingProgress) -> Working:
    return Working({"round": step.round, "compared": step.done, "of": step.of})


async def _once(work: Coroutine[Any, Any, T]) -> AsyncGenerator[T, None]:
    yield await work


async def _slot(slots: FairSemaphore, caller: Interrupt) -> AsyncGenerator[Interrupt, None]:
    async with slots.slot(caller):
        yield caller


async def _drawn(events: AsyncGenerator[Event, None]) -> list[Event]:
    """What a reply says if it wins; how long it was going to take is of no use by then."""
    async with aclosing(events):
        return [
            replace(event, seconds_to_answer=None) if isinstance(event, Decision) else event
            async for event in events
            if not isinstance(event, Progress)
        ]


def _answer(events: Sequence[Event]) -> str:
    """What there is to judge of a reply: the text, and the calls with their arguments."""
    chunks = (event for event in events if isinstance(event, Chunk) and event.kind in ("answer", "tool"))
    return "".join(
        chunk.text if chunk.call is None or chunk.call.name is None else f"\n{chunk.call.name} {chunk.text}"
        for chunk in chunks
    ).strip()


def _tokens(events: Sequence[Event]) -> int:
    return sum(len(event.token_ids) for event in events if isinstance(event, Chunk))


def _seeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + SEED_STRIDE * index)


def _winner(judge: Judge, drawn: Sequence[Sequence[Event]], playing: Sequence[int], ranking: Ranking) -> list[Event]:
    """The events of the best reply, with the bracket in its record."""
    winner = playing[ranking.order[0]]
    record = {
        "n": len(drawn),
        "winner": winner,
        "judge": judge.route.name,
        "bracket": [
            [
                {
                    "replies": [playing[one.match.first], playing[one.match.second]],
                    "votes": [one.verdict.count.first, one.verdict.count.second],
                    "by_lot": one.match.by_lot,
                }
                for one in matches
            ]
            for matches in ranking.rounds
        ],
        "discarded_tokens": sum(_tokens(events) for i, events in enumerate(drawn) if i != winner),
        "judge_tokens": sum(vote.completion_tokens for vote in ranking.votes),
    }
    *events, end = drawn[winner]
    assert isinstance(end, Finished), "a controller ends with Finished"
    return [*events, replace(end, more={**end.more, "best_of": record})]
