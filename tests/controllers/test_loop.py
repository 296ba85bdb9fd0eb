"""Loops: every one is broken soon, with an answer; what only looks like one goes on."""

import asyncio
import random

import pytest

from controllers import CONTROLLERS
from controllers.generation.events import Conversation, Finished
from controllers.generation.route import build_route
from controllers.policy.fold import Defaults, Policy
from controllers.policy.loop import LoopConfig
from demo.tasks import TASKS
from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine
from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer

LOOP = LoopConfig()
PHRASE = 26  # tokens of the family's phrase, at most


def reply(
    tokenizer: HubTokenizer,
    thought: list[int],
    answer: list[int],
    *,
    sampling: Sampling | None = None,
    settings: LoopConfig | None = LOOP,
    family: str = "lhrm",
) -> Finished:
    closing = tokenizer.control_id("</think>")

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        return answer if closing in prompt.token_ids else [*thought, *([closing] if answer else ()), *answer]  # type: ignore[list-item]

    engine = ScriptedEngine(tokenizer, script, context_length=16384)
    defaults = Defaults("think", loop=settings)
    route = build_route("r", CONTROLLERS["mode"], FAMILIES[family], engine, defaults)

    async def last() -> Finished:
        request = Conversation([{"role": "user", "content": "hi"}])
        policy = Policy("think", "client")
        events = [event async for event in route.controller(route, request, policy, sampling or Sampling())]
        assert isinstance(events[-1], Finished)
        return events[-1]

    return asyncio.run(last())


@pytest.mark.parametrize("period", [1, 2, 3, 7, 16, 31, 64, 100, 255, 256])
@pytest.mark.parametrize("before", [0, 300])
def test_a_loop_is_broken_within_four_periods_and_110_tokens_and_an_answer_follows(
    tokenizer: HubTokenizer, period: int, before: int
) -> None:
    draw = random.Random(period + before)
    lead = [draw.randrange(700) for _ in range(before)]
    round_ = [draw.randrange(700) for _ in range(period)]
    end = reply(tokenizer, lead + round_ * (8000 // period), tokenizer.encode("so 4"))
    limit = max(LOOP.after, before + 4 * period + 110) + PHRASE
    assert (end.cut, end.cut_by, end.reason) == ("wrap_up", "loop", "stop")
    assert end.reasoning_tokens <= limit
    assert end.answer_tokens > 0


def test_a_draft_written_again_with_other_numbers_is_a_loop(tokenizer: HubTokenizer) -> None:
    sentence = "so we add 1 to it and get 2, no, that is not right, let us try it again. "
    draft = tokenizer.encode(sentence) * 6
    thought = [token for number in range(60) for token in (*draft, *tokenizer.encode(str(number)))]
    assert reply(tokenizer, thought[:14000], tokenizer.encode("so 4")).cut_by == "loop"


def test_an_answer_that_repeats_itself_ends(tokenizer: HubTokenizer) -> None:
    end = reply(tokenizer, tokenizer.encode("short"), tokenizer.encode("on and on. ") * 1000)
    assert (end.reason, end.cut, end.record["loop"]) == ("length", None, "answer")
    assert end.answer_tokens < LOOP.after + LOOP.answer_span + 64


def rows(tokenizer: HubTokenizer, kind: str) -> list[int]:
    lines = {
        "table": "\n".join(f"| row {n} | {n * n} | {'yes' if n % 3 else 'no'} |" for n in range(200)),
        "enumeration": "\n".join(f"{n}. item {n * 7 % 13}" for n in range(1, 500)),
        "separators": "\n".join(f"part {n}\n{'-' * 60}\n{n * 37}" for n in range(60)),
        "code": "\n".join(f"def f{n}(x):\n    if x > {n}:\n        return x\n    return f{n}(x)\n" for n in range(80)),
    }
    return tokenizer.encode(lines[kind])


@pytest.mark.parametrize("kind", ["table", "enumeration", "separators", "code"])
def test_what_only_looks_like_a_loop_goes_on(tokenizer: HubTokenizer, kind: str) -> None:
    thought = rows(tokenizer, kind)
    end = reply(tokenizer, thought, rows(tokenizer, kind))
    assert (end.cut, end.reason, end.reasoning_tokens) == (None, "stop", len(thought))


def test_it_is_off_where_the_route_or_a_penalty_says_so(tokenizer: HubTokenizer) -> None:
    thought, answer = tokenizer.encode("on and on. ") * 200, tokenizer.encode("so 4")
    assert reply(tokenizer, thought, answer, settings=None).cut is None
    assert reply(tokenizer, thought, answer, sampling=Sampling(presence_penalty=0.5)).cut is None


def test_a_loop_in_a_long_reply_that_comes_whole_is_cut_while_it_runs(tokenizer: HubTokenizer) -> None:
    thought, answer = tokenizer.encode("on and on. ") * 900, tokenizer.encode("so 4")
    long = reply(tokenizer, thought, answer, sampling=Sampling(whole=True))
    short = reply(tokenizer, thought, answer, sampling=Sampling(whole=True, max_tokens=1000))
    assert (long.cut_by, long.discarded_tokens) == ("loop", 0)
    assert short.cut_by == "loop"
    assert short.discarded_tokens > 600


def test_a_looping_solution_is_told_to_end_and_then_ended(tokenizer: HubTokenizer) -> None:
    solution = [*tokenizer.encode("<solution>"), *(tokenizer.encode("on and on. ") * 900)]
    end = reply(tokenizer, solution, [], family="selfbudgeter")
    assert (end.cut, end.cut_by, end.reason, end.record["loop"]) == ("wrap_up", "loop", "length", "answer")


def test_loops_of_all_periods_are_broken_in_time(tokenizer: HubTokenizer) -> None:
    for period in range(1, 257):
        draw = random.Random(period)
        round_ = [draw.randrange(700) for _ in range(period)]
        end = reply(tokenizer, round_ * (2000 // period), tokenizer.encode("so 4"), settings=LoopConfig(after=0))
        assert (end.cut_by, end.reason, end.answer_tokens > 0) == ("loop", "stop", True), period
        assert end.reasoning_tokens <= 4 * period + 110 + PHRASE, period


@pytest.mark.parametrize("task", ["chain", "countdown", "english", "judging"])
def test_thoughts_as_the_demo_models_learn_them_go_on(tokenizer: HubTokenizer, task: str) -> None:
    """From their first token on, several of them as one long thought. `tests/accept` asks the models themselves."""
    rng, asked = random.Random(7), TASKS[task]
    for _ in range(40):
        drawn = (asked.draw(rng.choice(tuple(asked.difficulties)), rng) for _ in range(6))
        thought = tokenizer.encode("\n\n".join(written for _, written, _ in drawn))
        end = reply(tokenizer, thought, tokenizer.encode("so 4"), settings=LoopConfig(after=0))
        assert (end.cut, end.reasoning_tokens) == (None, len(thought))
