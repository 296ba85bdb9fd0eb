"""A judge that is chatted with. A conversation that asks for a verdict in a form that evaluation tools are known to
send is judged with the judge's own prompt, and the verdict is written as its caller reads it, at the end of the answer:

- MT-Bench's and RewardBench's pair: `[[A]]` or `[[B]]`;
- a reply beside a reference answer, as verifiers asks: `Final verdict: ` and one of the two words that it offers.

The judge reads the replies in the caller's order. The client reads the first vote as it is written; whatever else it
takes to come to a verdict, a second try or the route's further votes, is in the record.

Any other conversation is the model's own affair, and so is a pair where the judge writes brackets by itself.
"""

import random
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from controllers.concurrency import with_progress
from controllers.generation.events import Conversation, Event, Finished
from controllers.generation.route import Controller, Route
from controllers.judging.judge import Judge, JudgeParams, Verdict
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import Policy
from models.engines.base import Sampling
from models.formats.chunks import Chunk
from models.judge_prompts.families import BRACKETS

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


def judge_request_in(messages: Sequence[Mapping[str, Any]]) -> JudgeRequest | None:
    """The judgement that a conversation asks for in a form that is known, in one question without earlier replies."""
    if any(message["role"] not in ("system", "user") for message in messages):
        return None
    text = str(messages[-1].get("content", ""))
    return _pair_in(text) or _reference_in(text)


def _pair_in(text: str) -> JudgeRequest | None:
    """One pass: a client may write the marks as often as it likes."""
    question = QUESTION.search(text)
    query, first_mark, replies = text[question.end() if question else len(text) :].partition(FIRST)
    first, *rest = BETWEEN.split(replies, maxsplit=1)
    second, last_mark, _ = "".join(rest).rpartition(LAST)
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


def chat_controller(judge: Judge) -> Controller:
    """The controller of conversations with a judge's route."""

    async def run(
        route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> AsyncGenerator[Event, None]:
        asked = _known(judge, request)
        if asked is None:
            async with aclosing(judge.controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        params = _params(judge, asked, request, policy, sampling)

        def work(listener: Callable[[Event], None]) -> Coroutine[Any, Any, Verdict]:
            return judge.compare(asked.comparison, params, on_event=listener)

        end: Finished | None = None
        async with aclosing(with_progress(work)) as steps:
            async for step in steps:
                if isinstance(step, Finished):
                    end = step  # of the reply that is read along: the verdict comes behind it
                elif not isinstance(step, Verdict):
                    yield step
                else:
                    assert end is not None, "the listener hears the first reply to its end"
                    written = _written(route, asked, step, end, sampling.max_tokens)
                    if written is not None:
                        yield written
                    yield _recorded(end, step, len(written.token_ids) if written else 0)

    return run


def _known(judge: Judge, request: Conversation) -> JudgeRequest | None:
    asked = judge_request_in(request.messages)
    if asked is None or asked.comparison.kind not in judge.forms:
        return None
    return None if asked.comparison.kind == "pair" and judge.family.syntax == BRACKETS else asked


def _params(
    judge: Judge, asked: JudgeRequest, request: Conversation, policy: Policy, sampling: Sampling
) -> JudgeParams:
    """Those of the comparison, with room kept for the verdict. A request without a seed is judged anew each time."""
    seed = random.getrandbits(62) if sampling.seed is None else sampling.seed
    if sampling.max_tokens is not None:
        room = max(len(_tokens(judge.route, verdict)) for verdict in asked.verdicts)
        max_tokens = max(1, sampling.max_tokens - room)
        sampling = replace(sampling, max_tokens=max_tokens, min_tokens=min(sampling.min_tokens, max_tokens))
    return JudgeParams(
        policy,
        sampling,
        judge.settings.votes,
        seed,
        keep_reasoning=True,
        fixed_order=True,
        fixed_length=True,
        request=request,
    )


def _tokens(route: Route, verdict: str) -> tuple[int, ...]:
    return tuple(route.engine.tokenizer.encode(f"\n\n{verdict}"))


def _written(
    route: Route, asked: JudgeRequest, verdict: Verdict, end: Finished, max_tokens: int | None
) -> Chunk | None:
    """The verdict in the caller's words. None: there is none, or it does not fit behind the reply."""
    if verdict.winner is None:
        return None
    words = asked.verdicts[verdict.winner]
    token_ids = _tokens(route, words)
    room = route.engine.context_length - end.prompt_tokens - end.completion_tokens
    if max_tokens is not None:
        room = min(room, max_tokens - end.completion_tokens)
    if end.budget and end.budget.scope == "reply" and end.budget.enforced is not None:
        room = min(room, end.budget.enforced - end.budget.used)
    return Chunk("answer", f"\n\n{words}", token_ids, forced=True) if len(token_ids) <= room else None


def _recorded(end: Finished, verdict: Verdict, tokens: int) -> Finished:
    """The reply's end with the verdict's tokens, and what was judged beside it."""
    count, budget = verdict.count, end.budget
    if budget is not None and budget.scope == "reply":
        budget = replace(budget, used=budget.used + tokens)
    votes = {"first": count.first, "second": count.second, "abstained": count.abstained, "of": count.k}
    replies = sum(vote.tries for vote in verdict.votes)
    unread = sum(vote.completion_tokens for vote in verdict.votes) - end.completion_tokens
    return replace(
        end,
        completion_tokens=end.completion_tokens + tokens,
        answer_tokens=end.answer_tokens + tokens,
        discarded_tokens=end.discarded_tokens + unread,
        budget=budget,
        more={**end.more, "judge": {"winner": verdict.winner, "votes": votes, "replies": replies}},
    )
