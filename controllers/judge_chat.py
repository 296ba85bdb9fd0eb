"""A judge that is chatted with. A conversation that asks for a verdict in a form that evaluation tools are known to
send is judged with the judge's own prompt, and the verdict is written as its caller reads it, at the end of the answer:

- MT-Bench's and RewardBench's pair: `[[A]]` or `[[B]]`;
- a reply beside a reference answer, as verifiers asks: `Final verdict: ` and one of the two words that it offers.

Any other conversation is the model's own affair, and so is a pair where the judge writes brackets by itself.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from controllers.policy import Policy
from controllers.reply import Chunk, Event, Finished, Request
from controllers.route import Controller, Route
from controllers.verdicts import Comparison, verdict_in
from models.engine import Sampling
from models.judge_families import Form, JudgeFamily, Kind

PAIRWISE = re.compile(
    r"\[(?:User )?Question\]\s*(?P<query>.*?)\s*"
    r"\[The Start of Assistant A's Answer\]\s*(?P<first>.*?)\s*\[The End of Assistant A's Answer\]\s*"
    r"\[The Start of Assistant B's Answer\]\s*(?P<second>.*)\s*\[The End of Assistant B's Answer\]\s*",
    re.DOTALL,
)
REFERENCE = re.compile(
    r"Task:\n```\n(?P<query>.*?)\n```\n\nReference answer:\n```\n(?P<against>.*?)\n```\n\n"
    r"Response:\n```\n(?P<reply>.*)\n```\n\nRespond either \"(?P<yes>[^\"]+)\" or \"(?P<no>[^\"]+)\" only\.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a conversation asks for, and the two verdicts as its caller reads them."""

    comparison: Comparison
    verdicts: tuple[str, str]


def asked_in(messages: Sequence[Mapping[str, Any]]) -> Asked | None:
    """The judgement that a conversation asks for in a form that is known, in one question without earlier replies."""
    if any(message["role"] not in ("system", "user") for message in messages):
        return None
    text = str(messages[-1].get("content", ""))
    if pair := PAIRWISE.search(text):
        return Asked(Comparison("pair", pair["query"], pair["first"], pair["second"].rstrip()), ("[[A]]", "[[B]]"))
    if one := REFERENCE.search(text):
        verdicts = f"Final verdict: {one['yes']}", f"Final verdict: {one['no']}"
        return Asked(Comparison("reference", one["query"], one["reply"], against=one["against"]), verdicts)
    return None


def answering(family: JudgeFamily, forms: Mapping[Kind, Form], controller: Controller) -> Controller:
    """The chat controller of a judge route."""

    def known(request: Request) -> Asked | None:
        asked = asked_in(request.messages)
        if asked is None or asked.comparison.kind not in forms:
            return None
        return None if asked.comparison.kind == "pair" and family.syntax == "brackets" else asked

    async def run(route: Route, request: Request, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
        asked = known(request)
        if asked is None:
            async with aclosing(controller(route, request, policy, sampling)) as events:
                async for event in events:
                    yield event
            return
        answer: list[str] = []
        kind = asked.comparison.kind
        question = replace(request, messages=forms[kind].messages(asked.comparison.values(swapped=False)))
        async with aclosing(controller(route, question, policy, sampling)) as events:
            async for event in events:
                if isinstance(event, Chunk) and event.kind == "answer":
                    answer.append(event.text)
                if isinstance(event, Finished):
                    side = verdict_in("".join(answer), family.syntax, family.verdicts[kind])
                    if side is not None:
                        written = f"\n\n{asked.verdicts[side]}"
                        token_ids = tuple(route.engine.tokenizer.encode(written))
                        yield Chunk("answer", written, token_ids, forced=True)
                        event = _longer(event, len(token_ids))
                yield event

    return run


def _longer(end: Finished, tokens: int) -> Finished:
    completion, answer = end.completion_tokens + tokens, end.answer_tokens + tokens
    return replace(end, completion_tokens=completion, answer_tokens=answer)
