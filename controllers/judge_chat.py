"""A judge that is chatted with: a conversation that asks for the better of two replies, in MT-Bench's form, is judged
with the judge's own prompt, and the verdict is written as its caller reads it: `[[A]]` or `[[B]]` at the end.

Any other conversation is the model's own affair, and so is this one where the judge writes brackets by itself.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from controllers.policy import Policy
from controllers.reply import Chunk, Event, Finished, Request
from controllers.route import Controller, Route
from controllers.verdicts import Comparison, verdict_in
from models.engine import Sampling
from models.judge_families import Form, JudgeFamily

SIDES = ("[[A]]", "[[B]]")

PAIRWISE = re.compile(
    r"\[(?:User )?Question\]\s*(?P<query>.*?)\s*"
    r"\[The Start of Assistant A's Answer\]\s*(?P<first>.*?)\s*\[The End of Assistant A's Answer\]\s*"
    r"\[The Start of Assistant B's Answer\]\s*(?P<second>.*)\s*\[The End of Assistant B's Answer\]\s*",
    re.DOTALL,
)


def pair_in(messages: Sequence[Mapping[str, Any]]) -> Comparison | None:
    """The comparison that a conversation asks for, if it is in MT-Bench's form, which RewardBench uses."""
    asked = PAIRWISE.search(str(messages[-1].get("content", "")))
    if asked is None or any(message["role"] not in ("system", "user") for message in messages):
        return None
    return Comparison("pair", asked["query"], asked["first"], asked["second"].rstrip())


def answering(family: JudgeFamily, form: Form, controller: Controller) -> Controller:
    """The chat controller of a judge route."""

    async def run(route: Route, request: Request, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
        comparison = pair_in(request.messages)
        if comparison is None or family.syntax == "brackets":
            async with aclosing(controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        answer: list[str] = []
        asked = replace(request, messages=form.messages(comparison.values(swapped=False)))
        async with aclosing(controller(route, asked, policy, sampling)) as events:
            async for event in events:
                if isinstance(event, Chunk) and event.kind == "answer":
                    answer.append(event.text)
                if isinstance(event, Finished):
                    side = verdict_in("".join(answer), family.syntax, family.verdicts["pair"])
                    if side is not None:
                        written = "\n\n" + SIDES[side]
                        token_ids = tuple(route.engine.tokenizer.encode(written))
                        yield Chunk("answer", written, token_ids, forced=True)
                        event = _longer(event, len(token_ids))
                yield event

    return run


def _longer(end: Finished, tokens: int) -> Finished:
    completion, answer = end.completion_tokens + tokens, end.answer_tokens + tokens
    return replace(end, completion_tokens=completion, answer_tokens=answer)
