"""Best of n: what is drawn, what plays, what is told meanwhile, and what becomes of a request that is cancelled."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from itertools import count

import pytest

from controllers import CONTROLLERS
from controllers.generation.events import BudgetUse, Conversation, Decision, Finished, Interrupt, Progress, Working
from controllers.judging.best_of_n import best_of_controller, conversation_text
from controllers.policy.fold import BudgetSettings, Defaults, KeyLimits, Policy, fold
from models.engines.base import Sampling
from models.formats.chunks import Chunk

pytestmark = pytest.mark.anyio

ASK = ({"role": "user", "content": "A large number?"},)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def draw(make_route, make_judge):
    """Runs one request over a policy that writes `lines` in turn; gives its events, the policy's seeds, the judge's."""

    async def run(lines, best_of, *, seed=None, request=None, told=lambda event: None):
        seeds, said = [], count()

        def write(prompt, sampling):
            seeds.append(sampling.seed)
            return lines[next(said) % len(lines)]

        judge, reader = make_judge()
        controller = best_of_controller(judge, CONTROLLERS["mode"])
        policy = Policy("auto", "route", best_of=best_of)
        events = []
        async with aclosing(
            controller(make_route(write), request or Conversation(ASK), policy, Sampling(max_tokens=400, seed=seed))
        ) as running:
            async for event in running:
                events.append(event)
                told(event)
        return events, seeds, reader

    return run


def answer_of(events) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == "answer")


def numbers(*values: int) -> list[str]:
    return [f"<think>hm {value}</think>{value}" for value in values]


async def test_the_winner_is_the_reply_and_progress_comes_before_it(draw):
    events, seeds, reader = await draw(numbers(31, 75, 12, 50), 4, seed=10)
    assert answer_of(events) == "75"
    told = [event.record for event in events if isinstance(event, Working)]
    assert told[:4] == [{"drawn": drawn, "of": 4} for drawn in (1, 2, 3, 4)]
    assert told[4:] == [{"round": 1 + (done > 2), "compared": done, "of": 3} for done in (1, 2, 3)]
    assert all(not isinstance(event, Working) for event in events[len(told) :])
    assert seeds == [10, 138, 266, 394]
    assert len(reader.asked) == 3
    record = events[-1].more["best_of"]
    assert (record["n"], record["winner"]) == (4, 1)
    assert record["discarded_tokens"] > 0 < record["judge_tokens"]


async def test_one_reply_is_not_judged(draw):
    events, seeds, reader = await draw(numbers(31), 1)
    assert (answer_of(events), seeds, reader.asked, events[-1].more) == ("31", [None], [], {})


async def test_replies_without_an_answer_do_not_play(draw):
    events, _, reader = await draw(["<think>", "<no_think>5</no_think>", "<think>", "<no_think>7</no_think>"], 4)
    assert (answer_of(events), len(reader.asked)) == ("7", 1)
    events, _, reader = await draw(["<think>"], 2)
    assert (events[-1].more["best_of"]["winner"], reader.asked) == (0, [])


@pytest.mark.parametrize(("at", "at_most"), [("drawn", 0), ("compared", 6)])
async def test_a_cancelled_request_waits_for_no_more_of_the_judge(draw, at, at_most):
    request = replace(Conversation(ASK), interrupt=Interrupt())

    def cancel(event):
        if isinstance(event, Working) and at in event.record and event.record.get("drawn") in (None, 8):
            request.interrupt.ask("cancel")

    events, _, reader = await draw(numbers(31, 75, 12, 50, 3, 4, 5, 6), 8, request=request, told=cancel)
    assert isinstance(events[-1], Finished)
    assert answer_of(events) == "31"
    assert events[-1].more["best_of"]["bracket"] == []
    assert len(reader.asked) <= at_most, "of seven comparisons"


async def test_a_cancellation_does_not_wait_for_a_comparison(make_route, make_judge):
    judge, _ = make_judge(engine={"first_token_delay": 5})
    controller, interrupt = best_of_controller(judge, CONTROLLERS["mode"]), Interrupt()
    request, loop = Conversation(ASK, interrupt=interrupt), asyncio.get_running_loop()
    begun = loop.time()
    loop.call_later(0.2, interrupt.ask, "cancel")
    policy = Policy("auto", "route", best_of=2)
    events = [event async for event in controller(make_route(numbers(31, 75)), request, policy, Sampling())]
    assert loop.time() - begun < 0.5
    assert (answer_of(events), events[-1].more["best_of"]["bracket"]) == ("31", [])
    assert judge.route.engine.running() == 0


async def test_no_more_are_drawn_at_once_than_the_judge_has_slots_and_requests_take_turns(make_route, make_judge):
    judge, _ = make_judge(concurrency=3)
    route = make_route(lambda prompt, sampling: numbers(sampling.seed % 97)[0], token_delay=0.001)
    controller, done, most = best_of_controller(judge, CONTROLLERS["mode"]), [], 0

    async def ask(name: str, best_of: int) -> None:
        policy, request = Policy("auto", "route", best_of=best_of), Conversation(ASK, interrupt=Interrupt())
        async for event in controller(route, request, policy, Sampling(seed=1)):
            if isinstance(event, Working) and event.record.get("drawn") == best_of:
                done.append(name)

    asking = [asyncio.ensure_future(ask("much", 30)), asyncio.ensure_future(ask("little", 4))]
    while not all(task.done() for task in asking):
        most = max(most, route.engine.running())
        await asyncio.sleep(0)
    await asyncio.gather(*asking)
    assert most == 3
    assert done == ["little", "much"]


async def test_whoever_cancels_waits_for_no_slot(make_route, make_judge):
    judge, _ = make_judge(concurrency=1)
    route = make_route(numbers(31, 75), first_token_delay=5)
    controller, interrupt = best_of_controller(judge, CONTROLLERS["mode"]), Interrupt()

    async def ask(interrupt: Interrupt | None) -> list:
        request = Conversation(ASK, interrupt=interrupt)
        return [event async for event in controller(route, request, Policy("auto", "route", best_of=4), Sampling())]

    other = asyncio.ensure_future(ask(None))
    while not route.engine.running():  # noqa: ASYNC110 - the engine has no event for it
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.1, interrupt.ask, "cancel")
    async with asyncio.timeout(2):
        events = await ask(interrupt)
    assert events[-1].cancelled
    assert route.engine.running() == 1, "the other's"
    other.cancel()
    await asyncio.wait((other,))


async def test_salt_priority_and_tenant_reach_every_request_of_the_judge(make_route, make_judge):
    judge, reader = make_judge(votes=3)
    controller = best_of_controller(judge, CONTROLLERS["mode"])
    said = count()
    route = make_route(lambda prompt, sampling: numbers((31, 75)[next(said) % 2])[0])

    async def ask(salt: str | None, key: str) -> None:
        policy = replace(fold({}, route.family, route.defaults, KeyLimits(name=key)), best_of=2)
        request = Conversation(ASK, cache_salt=salt)
        assert [event async for event in controller(route, request, policy, Sampling(seed=1, priority=5))]

    await ask("s", "mine")
    assert reader.salts == ["s"] * 2
    assert {sampling.priority for sampling in reader.sampled} == {5}
    await ask("s", "mine")
    assert len(reader.asked) == 2, "remembered"
    await ask("s", "theirs")
    assert len(reader.asked) == 4
    await ask(None, "mine")
    assert reader.salts[4:] == [None] * 2


async def test_how_long_a_reply_was_going_to_take_is_not_told_when_it_is_over(make_route, make_judge):
    async def timed(route, request, policy, sampling):
        yield Decision("think", "route", (1,), seconds_to_answer=3.0)
        yield Progress(BudgetUse("thinking", 9, None, 9, 4), 1.0)
        yield Chunk("answer", "5", (2,))
        yield Finished("stop", None, 1, 0, 1, 0, Decision("think", "route", (1,)))

    controller = best_of_controller(make_judge()[0], timed)
    policy = Policy("auto", "route", best_of=2)
    events = [event async for event in controller(make_route(["1"]), Conversation(ASK), policy, Sampling())]
    shown = [event for event in events if not isinstance(event, Working)]
    assert [type(event) for event in shown] == [Decision, Chunk, Finished]
    assert shown[0].seconds_to_answer is None


@pytest.mark.parametrize(("key", "most"), [(None, 300), (KeyLimits(cap=8), 2 * 8)])
async def test_the_limits_of_the_callers_key_hold_for_the_judge_too(make_route, make_judge, key, most):
    verdicts = []
    judge, _ = make_judge(lambda first, second: f"<think>{'hm ' * 50}</think>neither", on_verdict=verdicts.append)
    judge.route = replace(judge.route, defaults=Defaults("auto", budgets=BudgetSettings(graceful=False)))
    said = count()
    route = make_route(lambda prompt, sampling: f"<no_think>{next(said)}</no_think>")
    policy = replace(fold({}, route.family, route.defaults, key), best_of=2)
    controller = best_of_controller(judge, CONTROLLERS["mode"])
    assert [event async for event in controller(route, Conversation(ASK), policy, Sampling())]
    (vote,) = verdicts[0].votes
    assert most / 2 < vote.reasoning_tokens <= most


def test_a_query_is_one_turn_as_it_is_or_several_by_name():
    assert conversation_text(ASK) == "A large number?"
    assert (
        conversation_text([{"role": "system", "content": "Be brief."}, *ASK])
        == "System: Be brief.\n\nUser: A large number?"
    )
