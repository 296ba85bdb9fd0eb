"""Deadlines: the answer begins in time, at whatever pace the engine writes."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from controllers import CONTROLLERS
from controllers.deciders import load_decider, read_decider
from controllers.generation.events import Conversation, Decision, Event, Finished
from controllers.generation.route import Route, build_route
from controllers.generation.throughput import ThroughputEstimate
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Defaults, KeyLimits, Policy, fold
from controllers.policy.load import Deadline, LoadConfig
from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.text.tokenizer import HubTokenizer
from tests import virtual_time
from tests.controllers.test_driver import ASK

TOKENIZER = HubTokenizer("demo/tokenizer")
FAMILY = FAMILIES["qwen3"]


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pace is measured by the loop's own time."""
    monkeypatch.setattr(time, "perf_counter", lambda: asyncio.get_running_loop().time())
    yield


def route_of(sentence: str = "and on", lines: str = " ", **engine: float) -> Route:
    def script(prompt: Prompt, sampling: Sampling) -> Line:
        reply = TOKENIZER.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
        return "the answer" if "</think>" in reply else (sentence + lines) * 400

    scripted = ScriptedEngine(TOKENIZER, script, **engine)  # type: ignore[arg-type]
    return build_route("r", CONTROLLERS["mode"], FAMILY, scripted, Defaults("think"))


async def timed(route: Route, policy: Policy, sampling: Sampling, arrived: float = 0.0) -> tuple[list[Event], float]:
    """The reply, and when its answer began."""
    events: list[Event] = []
    began = 0.0
    async for event in route.controller(route, Conversation(ASK, arrived=arrived), policy, sampling):
        events.append(event)
        if not began and isinstance(event, Chunk) and event.kind == "answer" and event.text.strip():
            began = asyncio.get_running_loop().time()
    return events, began


def reply(route: Route, seconds: float, sampling: Sampling | None = None, **deadline: Any) -> tuple[Finished, float]:
    policy = Policy("think", "client", deadline=Deadline(seconds, **{"by": "deadline", **deadline}))
    events, began = virtual_time.run(timed(route, policy, sampling or Sampling()))
    assert isinstance(events[-1], Finished)
    return events[-1], began


@pytest.mark.parametrize("token_delay", [0.01, 0.1])
@pytest.mark.parametrize("first_token_delay", [0.2, 1.0])
@pytest.mark.parametrize("tokens_per_step", [1, 4])
@pytest.mark.parametrize("lines", [" ", ".\n"])
@pytest.mark.parametrize("tolerance", [None, 32])
def test_an_answer_begins_by_its_deadline_and_not_long_before(
    token_delay: float, first_token_delay: float, tokens_per_step: int, lines: str, tolerance: int | None
) -> None:
    route = route_of(
        lines=lines,
        first_token_delay=first_token_delay,
        token_delay=token_delay,
        tokens_per_step=tokens_per_step,
        context_length=8192,
    )
    policy = Policy("think", "client", tolerance=tolerance, deadline=Deadline(8.0, "deadline"))
    events, began = virtual_time.run(timed(route, policy, Sampling()))
    end = events[-1]
    assert isinstance(end, Finished)
    early = ((tolerance or 0) + tokens_per_step + 5) * token_delay
    assert 8.0 - early - 0.2 <= began <= 8.0 + 2 * tokens_per_step * token_delay
    assert end.cut_by == "deadline"
    assert end.cut in (("wrap_up",) if tolerance is None else ("line_end", "wrap_up"))
    assert end.record["deadline"] == {"seconds": 8.0, "tokens": None}


def test_a_thought_that_ends_by_itself_is_let_be_and_the_pace_is_known_the_next_time() -> None:
    route = route_of(token_delay=0.01, first_token_delay=0.1, context_length=8192)
    end, _ = reply(route, 10_000.0, Sampling(max_tokens=200))
    assert (end.cut, end.reason) == (None, "length")
    again, _ = reply(route, 5.0)
    assert again.record["deadline"]["tokens"] == pytest.approx(480, abs=20)


@pytest.mark.parametrize(
    ("seconds", "by", "thinks"), [(2.0, "deadline", True), (0.5, "deadline", False), (0.5, "load", False)]
)
def test_where_hardly_any_thinking_fits_there_is_none(seconds: float, by: str, thinks: bool) -> None:
    route = route_of(token_delay=0.01, first_token_delay=0.1, context_length=8192)
    reply(route, 10_000.0, Sampling(max_tokens=100))
    end, _ = reply(route, seconds, by=by)
    expected = ("think", "client") if thinks else ("no_think", by)
    assert (end.decision.mode, end.decision.chosen_by) == expected
    short, _ = reply(route, seconds, by=by, floor=10)
    assert short.decision.mode == "think"


def test_a_reply_that_is_over_has_nothing_to_end() -> None:
    end, _ = reply(route_of(token_delay=0.01, first_token_delay=0.1), 10_000.0, Sampling(max_tokens=3))
    assert (end.reason, end.cut, end.reasoning_tokens) == ("length", None, 3)


def test_what_a_request_has_waited_counts() -> None:
    route = route_of(token_delay=0.01, first_token_delay=0.1, context_length=8192)
    policy = Policy("think", "client", deadline=Deadline(5.0, "deadline"))
    _, began = virtual_time.run(timed(route, policy, Sampling(), arrived=-3.0))
    assert began == pytest.approx(2.0, abs=0.1)


def test_a_penalty_and_a_deadline_of_the_request_contradict_each_other() -> None:
    route = route_of(token_delay=0.01)
    with pytest.raises(PolicyError, match="presence_penalty"):
        reply(route, 1.0, Sampling(presence_penalty=1.0))
    end, _ = reply(route, 0.5, Sampling(presence_penalty=1.0, max_tokens=99), by="load")
    assert end.cut is None


def test_request_over_key_over_route_says_the_deadline() -> None:
    load = LoadConfig(goal_seconds=9.0, floor=5)
    defaults, key = Defaults("think", load=load), KeyLimits(deadline=7.0)
    asked = {"reasond": {"deadline_seconds": 3}}
    assert fold(asked, FAMILY, defaults, key).deadline == Deadline(3.0, "deadline", 5)
    assert fold({}, FAMILY, defaults, key).deadline == Deadline(7.0, "deadline", 5)
    assert fold({}, FAMILY, defaults).deadline == Deadline(9.0, "load", 5)
    assert fold({"thinking_budget": 50}, FAMILY, defaults).deadline is None
    held = Defaults("think", load=load.model_copy(update={"hold_clients": True}))
    assert fold({"thinking_budget": 50}, FAMILY, held).deadline == Deadline(9.0, "load", 5)
    assert fold({}, FAMILY, Defaults("think")).deadline is None
    for wrong in (0, -1, "5", True, float("inf")):
        with pytest.raises(PolicyError, match="seconds"):
            fold({"reasond": {"deadline_seconds": wrong}}, FAMILY, defaults)
    with pytest.raises(PolicyError, match="no thinking that could end sooner"):
        fold(asked, FAMILIES["selfbudgeter"], Defaults("think"))
    assert fold({}, FAMILIES["plain"], Defaults("no_think", load=load), key).deadline is None


def test_pressure_is_how_much_slower_a_token_is_than_it_can_be() -> None:
    pace = ThroughputEstimate()
    assert pace.pressure == 0.0
    for seconds, expected in ((0.01, 0.0), (0.025, 0.5), (0.1, 1.0)):
        for _ in range(10):
            pace.wrote(1000, 1000 * seconds)
        assert pace.pressure == pytest.approx(expected, abs=0.05)


def test_a_route_may_think_less_where_its_engine_is_slow() -> None:
    def chosen(shift: float) -> Decision:
        plain = route_of()
        plain.pace.token, plain.pace.quiet = 0.04, 0.01
        defaults = Defaults("auto", load=LoadConfig(shift=shift), decider="random")
        decider = load_decider(read_decider({"decider": "ask"}), TOKENIZER)
        route = replace(plain, defaults=defaults, decider=decider)
        events, _ = virtual_time.run(timed(route, Policy("auto", "route"), Sampling(max_tokens=5)))
        return next(event for event in events if isinstance(event, Decision))

    assert chosen(0.0).threshold == 0.5
    assert chosen(0.5).threshold == 0.75


class Crowded(ScriptedEngine):
    """The more replies it writes at once, the longer a token takes: with eight twice as long as with none."""

    @property
    def token_delay(self) -> float:
        return 0.01 * (1 + self._running / 8)

    @token_delay.setter
    def token_delay(self, value: float) -> None:
        """It follows from the load."""


def crowded() -> Route:
    plain = route_of()
    engine = Crowded(TOKENIZER, plain.engine._script, first_token_delay=0.05, context_length=8192)  # type: ignore[attr-defined]
    return replace(plain, engine=engine)


async def storm(route: Route, replies: int, gap: float, seconds: float) -> float:
    """The share of answers that began in time, of replies that come at random, `gap` seconds apart."""
    rng = random.Random(0)
    policy = Policy("think", "route", deadline=Deadline(seconds, "load"))

    async def one(at: float) -> bool:
        await asyncio.sleep(at)
        arrived = asyncio.get_running_loop().time()
        _, began = await timed(route, policy, Sampling(), arrived)
        return began - arrived <= seconds

    times = [0.0]
    while len(times) < replies:
        times.append(times[-1] + (rng.expovariate(1 / gap) if gap else 0.0))
    return sum(await asyncio.gather(*map(one, times))) / replies


@pytest.mark.parametrize("together", [1, 8, 64])
def test_nearly_all_answers_begin_in_time_however_many_are_written_at_once(together: int) -> None:
    route = crowded()
    virtual_time.run(storm(route, together, 0.0, 6.0))
    assert virtual_time.run(storm(route, together, 0.0, 6.0)) >= 0.95


def test_nearly_all_answers_begin_in_time_where_more_comes_than_the_engine_can_do() -> None:
    """The engine's eight hundred tokens a second are one and a fifth times asked for."""
    gap = 800 / 800 / 1.2  # a thought would have 800 tokens
    assert virtual_time.run(storm(crowded(), 50, gap, 6.0)) >= 0.95
