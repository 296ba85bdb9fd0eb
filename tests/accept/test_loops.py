"""The loop rule lets the thoughts of all demo models be: ten thousand of them, at temperature 1.

It looks from the first token on, but for `budget`: `checked` has it do its sums over and over, word for word.
"""

import asyncio
from contextlib import AsyncExitStack
from random import Random

import pytest

from controllers.generation.events import Conversation, Finished
from controllers.policy.fold import Policy
from demo.tasks import TASKS
from models.engines.base import Sampling
from server.assemble import assemble
from server.config.load import parse_config
from server.engines import start_engines
from tests.accept.exits import CONFIG, ROUTE
from tests.processes import ROOT
from training.data.questions import draw

pytestmark = pytest.mark.accept

AT_ONCE = 128


@pytest.mark.parametrize(
    ("model", "family", "task", "count"),
    [
        ("hybrid", "lhrm", "chain", 3000),
        ("small", "lhrm", "countdown", 2000),
        ("target", "lhrm", "countdown", 2000),
        ("budget", "selfbudgeter", "checked", 1500),
        ("judge", "lhrm", "judging", 1500),
    ],
)
def test_no_thought_of_a_demo_model_is_taken_for_a_loop(model: str, family: str, task: str, count: int) -> None:
    ends = asyncio.run(replies(model, family, task, count))
    looped = [end.record for end in ends if end.cut_by == "loop" or "loop" in end.record]
    tokens = sum(end.reasoning_tokens + end.answer_tokens for end in ends)
    print(f"{model}: {len(ends)} thoughts of {tokens / len(ends):.0f} tokens, {len(looped)} taken for loops")
    assert len(ends) == count
    assert not looped


async def replies(model: str, family: str, task: str, count: int) -> list[Finished]:
    text = CONFIG.format(model=f"demo/{model}") + ROUTE.format(name="demo", family=family)
    if task != "checked":
        text += "loop = { after = 0 }\n"
    config, rng = parse_config(text, ROOT), Random(11)
    levels = tuple(TASKS[task].difficulties)
    questions = [draw(TASKS[task], rng.choice(levels), "test", rng).text for _ in range(count)]
    ends: list[Finished] = []
    async with AsyncExitStack() as stack:
        route = assemble(config, await start_engines(config, stack), 0).routes["demo"]

        async def work() -> None:
            while questions:
                request = Conversation([{"role": "user", "content": questions.pop()}])
                sampling = Sampling(temperature=1.0, max_tokens=1500, seed=len(questions))
                async for event in route.controller(route, request, Policy("think", "client"), sampling):
                    if isinstance(event, Finished):
                        ends.append(event)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return ends
