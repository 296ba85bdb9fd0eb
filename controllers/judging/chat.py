"""A judge that is chatted with. A conversation that asks for a verdict in a form that evaluation tools are known to
send is judged with the judge's own prompt, and the verdict is written as its caller reads it, at the end of the answer:

- MT-Bench's and RewardBench's pair: `[[A]]` or `[[B]]`;
- a reply beside a reference answer, as verifiers asks: `Final verdict: ` and one of the two words that it offers.

The judge reads the replies in the caller's order. The client reads the first vote as it is written; whatever else it
takes to come to a verdict, a second try or the route's further votes, is told in the record.

Any other conversation is the model's own affair, and so is a pair where the judge writes brackets by itself.
"""

import random
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from controllers.concurrency import with_progress
from controllers.generation.events import Conversation, Event, Finished
from controllers.judging.judge import Audience, Judge, JudgeParams, Verdict
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import Policy
from controllers.route import Controller, Route
from models.engines.base import Sampling
from models.formats.chunks import Chunk

QUESTION = re.compile(r"\[(?:User )?Question\]")
FIRST = "[The Start of Assistant A's Answer]"
BETWEEN = re.compile(r"\[The End of Assistant A's Answer\]\s*\[The Start of Assistant B's Answer\]")
LAST = "[The End of Assistant B's Answer]"

TASK = "Task:\n```\n"
REFERENCE = "\n```\n\nReference answer:\n```\n"
RESPONSE = "\n```\n\nResponse:\n```\n"
CHOICES = re.compile(r"\n```\n\nRespond either \"(?P<yes>[^\"]+)\" or \"(?P<no>[^\"]+)\" only\.")


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """What a conversation asks for, and the two verdicts as its caller reads them."""

    comparison: JudgeComparison
    verdicts: tuple[str, str]


def asked_in(messages: Sequence[Mapping[str, Any]]) -> JudgeRequest | None:
    """The judgement that a conversation asks for in a form that is known, in one question without earlier replies."""
    if any(message["role"] not in ("system", "user") for message in messages):
        return None
    text = str(messages[-1].get("content", ""))
    return _pair_in(text) or _reference_in(text)


def _pair_in(text: str) -> JudgeRequest | None:
    """One pass: a client may write the marks as often as it likes."""
    question = QUESTION.search(text)
    query, first_mark, replies = text[question.end() if question else len(text) :].partition(FIRST)
    first, *behind = BETWEEN.split(replies, maxsplit=1)
    second, last_mark, _ = (behind[0] if behind else "").rpartition(LAST)
    if not (first_mark and last_mark):
        return None
    return JudgeRequest(JudgeComparison("pair", query.strip(), first.strip(), second.strip()), ("[[A]]", "[[B]]"))


def _reference_in(text: str) -> JudgeRequest | None:
    _, _, task = text.partition(TASK)
    query, _, rest = task.partition(REFERENCE)
    against, response_mark, rest = rest.partition(RESPONSE)
    offered = list(CHOICES.finditer(rest))  # the last one counts: the response may spell others
    if not (response_mark and offered):
        return None
    choices = offered[-1]
    verdicts = f"Final verdict: {choices['yes']}", f"Final verdict: {choices['no']}"
    return JudgeRequest(JudgeComparison("reference", query, rest[: choices.start()], against=against), verdicts)


def answering(judge: Judge) -> Controller:
    """The chat controller of a judge's route."""

    async def run(
        route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> AsyncGenerator[Event, None]:
        asked = _known(judge, request)
        if asked is None:
            async with aclosing(judge.controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        ends: list[Finished] = []
        async with aclosing(with_progress(_judging(judge, asked, request, policy, sampling))) as told:
            async for said in told:
                if isinstance(said, Finished):
                    ends.append(said)  # of the reply that is read along: the verdict comes behind it
                elif isinstance(said, Verdict):
                    for event in _ending(route, asked, said, ends[0], sampling.max_tokens):
                        yield event
                else:
                    yield said

    return run


def _known(judge: Judge, request: Conversation) -> JudgeRequest | None:
    asked = asked_in(request.messages)
    if asked is None or asked.comparison.kind not in judge.forms:
        return None
    return None if asked.comparison.kind == "pair" and judge.family.syntax == "brackets" else asked


def _judging(
    judge: Judge, asked: JudgeRequest, request: Conversation, policy: Policy, sampling: Sampling
) -> Callable[[Callable[[Event], None]], Coroutine[Any, Any, Verdict]]:
    """The comparison, with room kept for the verdict. A request without a seed is judged anew each time."""
    seed = random.getrandbits(62) if sampling.seed is None else sampling.seed
    if sampling.max_tokens is not None:
        room = max(len(_tokens(judge.route, verdict)) for verdict in asked.verdicts)
        most = max(1, sampling.max_tokens - room)
        sampling = replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))
    terms = JudgeParams(policy, sampling, judge.votes, seed, reasoning=True, as_they_stand=True, held_to_length=True)

    def work(tell: Callable[[Event], None]) -> Coroutine[Any, Any, Verdict]:
        return judge.compare(asked.comparison, terms, audience=Audience(request, tell))

    return work


def _tokens(route: Route, verdict: str) -> tuple[int, ...]:
    return tuple(route.engine.tokenizer.encode(f"\n\n{verdict}"))


def _ending(
    route: Route, asked: JudgeRequest, verdict: Verdict, end: Finished, most: int | None
) -> Iterator[Chunk | Finished]:
    written = _written(route, asked, verdict, end, most)
    if written is not None:
        yield written
    yield _recorded(end, verdict, len(written.token_ids) if written else 0)


def _written(route: Route, asked: JudgeRequest, verdict: Verdict, end: Finished, most: int | None) -> Chunk | None:
    """The verdict in the caller's words. None: there is none, or it does not fit behind the reply."""
    if verdict.winner is None:
        return None
    words = asked.verdicts[verdict.winner]
    token_ids = _tokens(route, words)
    budget = end.budget if end.budget and end.budget.scope == "reply" else None
    left = [
        route.engine.context_length - end.prompt_tokens - end.completion_tokens,
        *([] if most is None else [most - end.completion_tokens]),
        *([] if budget is None or budget.enforced is None else [budget.enforced - budget.used]),
    ]
    return Chunk("answer", f"\n\n{words}", token_ids, forced=True) if len(token_ids) <= min(left) else None


def _recorded(end: Finished, verdict: Verdict, tokens: int) -> Finished:
    """The reply's end with the verdict's tokens, and what was judged beside it."""
    vote, budget = verdict.vote, end.budget
    if budget is not None and budget.scope == "reply":
        budget = replace(budget, used=budget.used + tokens)
    votes = {"first": vote.first, "second": vote.second, "abstained": vote.abstained, "of": vote.k}
    replies = sum(ballot.tries for ballot in verdict.ballots)
    unread = sum(ballot.completion_tokens for ballot in verdict.ballots) - end.completion_tokens
    return replace(
        end,
        completion_tokens=end.completion_tokens + tokens,
        answer_tokens=end.answer_tokens + tokens,
        discarded_tokens=end.discarded_tokens + unread,
        budget=budget,
        more={**end.more, "judge": {"winner": verdict.winner, "votes": votes, "replies": replies}},
    )
