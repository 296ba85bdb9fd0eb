"""The driver: any cut of the stream gives one reply, rules may meet at one token, and a rule is a line of the table."""

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import controllers.rules
from controllers import CONTROLLERS
from controllers.generation.answer_format import AnswerFormat
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt
from controllers.generation.route import Route, build_route, with_target
from controllers.generation.state import ReplyState
from controllers.policy.fold import BudgetSettings, Defaults, Policy
from controllers.policy.speculation import SpeculativeConfig
from controllers.rules.base import Action, Rule
from models.engines.base import Delta, EngineDead, Grammar, Prompt, Sampling
from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.text.tokenizer import HubTokenizer
from tests.controllers.stories import Model, recites
from tests.formats import HERMES

TOKENIZER = HubTokenizer("demo/tokenizer")
ASK = [{"role": "user", "content": "hi"}]
THOUGHT = "Try 3.\n\nWait, no. 1+1=2. So it is small, and on and on."
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>'
TARGET = "Hold on, the target writes this. And goes on. " * 4


class Recut:
    """An engine whose deltas hold as many tokens as `sizes` draws."""

    def __init__(self, engine: ScriptedEngine, sizes: random.Random, most: int) -> None:
        self._engine = engine
        self._sizes = sizes
        self._most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        held: Delta | None = None
        size = self._sizes.randint(1, self._most)
        async for delta in self._engine.generate(prompt, sampling):
            held = delta if held is None else joined(held, delta)
            if delta.finish is not None or len(held.token_ids) >= size:
                yield held
                held, size = None, self._sizes.randint(1, self._most)


def joined(first: Delta, second: Delta) -> Delta:
    logprobs = None if first.logprobs is None else (*first.logprobs, *(second.logprobs or ()))
    return replace(
        first,
        token_ids=first.token_ids + second.token_ids,
        pieces=first.pieces + second.pieces,
        logprobs=logprobs,
        finish=second.finish,
        stopped_by=second.stopped_by,
    )


def engine(script: Any, *, cut: int = 1, seed: int = 0, name: str = "s") -> Any:
    scripted = ScriptedEngine(TOKENIZER, script, name=name, context_length=2048)
    return scripted if cut == 1 else Recut(scripted, random.Random(seed), cut)


def goes_on(thought: str, answer: str) -> Model:
    """A model that answers behind its closed thought, and thinks before."""
    return Model(
        TOKENIZER, lambda reply: answer if "</think>" in reply else recites(f"{thought}</think>{answer}")(reply)
    )


def run(route: Route, policy: Policy, sampling: Sampling, **conversation: Any) -> list[Event]:
    async def collect() -> list[Event]:
        request = Conversation(ASK, **conversation)
        return [event async for event in route.controller(route, request, policy, sampling)]

    return asyncio.run(collect())


def essence(events: list[Event]) -> tuple[Any, ...]:
    """What a client has of a reply, however its chunks were cut: texts, ids and log-probabilities by kind, the
    decision, and the end. Times are left out, and the tokens that came behind a cut in its own delta."""
    spans: list[list[Any]] = []
    tokens: list[Any] = []
    for event in events:
        if isinstance(event, Chunk):
            key = (event.kind, event.forced, event.target, event.call and event.call.number)
            if event.text and (not spans or spans[-1][0] != key):
                spans.append([key, ""])
            if event.text:
                spans[-1][1] += event.text
            tokens += [(token_id, event.forced, event.target) for token_id in event.token_ids]
            tokens += event.logprobs or ()
    end = events[-1]
    assert isinstance(end, Finished)
    decision = next(event for event in events if isinstance(event, Decision))
    target = end.target and (dict(end.target.takeovers), end.target.target_tokens, end.target.scores)
    bare = replace(
        end, target=None, discarded_tokens=0, decision=replace(end.decision, budget=None, seconds_to_answer=None)
    )
    logprobs = [each for each in tokens if not isinstance(each, tuple)]
    return spans, [each for each in tokens if isinstance(each, tuple)], logprobs, decision.chosen_by, bare, target


SAMPLINGS = (
    Sampling(),
    Sampling(stop=("is sm", "!"), logprobs=1),
    Sampling(stop=("swer",)),
    Sampling(max_tokens=30, min_tokens=5),
    Sampling(stop_token_ids=(TOKENIZER.encode("answer")[-1],)),
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_way_of_cutting_the_stream_changes_a_reply(data: st.DataObject) -> None:
    """Deltas of one to eight tokens give the same text, ids, usage and record as deltas of one."""
    draw = data.draw
    sampling = draw(st.sampled_from(SAMPLINGS))
    budget = draw(st.one_of(st.none(), st.integers(0, 40)))
    mode = draw(st.sampled_from(("think", "auto", "no_think")))
    policy = Policy(
        mode,
        "client",
        budget=budget,
        requested=budget,
        tolerance=draw(st.sampled_from((None, 0, 8))),
        reserve=draw(st.sampled_from((0, 6))),
    )
    answer = draw(st.sampled_from(("the answer is small!", f"see. {CALL}", f"{CALL}{CALL} and on")))
    shape = draw(
        st.sampled_from((None, AnswerFormat(None, HERMES), AnswerFormat(Grammar("regex", ".*"), HERMES, single=True)))
    )
    speculative, seed = draw(st.booleans()), draw(st.integers(0, 2**16))

    def reply(cut: int) -> list[Event]:
        thought = THOUGHT if mode == "think" else f"<think>{THOUGHT}"
        defaults = Defaults("auto", budgets=BudgetSettings(reserve=policy.reserve))
        small = engine(goes_on(thought, answer), cut=cut, seed=seed)
        route = build_route("r", CONTROLLERS["mode"], FAMILIES["lhrm"], small, defaults)
        if speculative:
            settings = SpeculativeConfig(target="large", takeover_tokens=7, excess_after=1, excess_tokens=9)
            large = engine(lambda prompt, sampling: TARGET, cut=cut, seed=seed + 1, name="large")
            route = with_target(route, large, settings, CircuitBreaker())
        return run(route, policy, sampling, shape=shape)

    assert essence(reply(1)) == essence(reply(8))


@settings(max_examples=200, deadline=None)
@given(
    budget=st.one_of(st.none(), st.integers(0, 24)),
    reserve=st.integers(0, 12),
    max_tokens=st.integers(8, 60),
    asks_at=st.integers(0, 24),
    tolerance=st.sampled_from((None, 0, 6)),
    grammar=st.booleans(),
    cancel=st.booleans(),
)
def test_rules_that_meet_at_one_token_keep_every_limit(
    budget: int | None, reserve: int, max_tokens: int, asks_at: int, tolerance: int | None, grammar: bool, cancel: bool
) -> None:
    """A budget, a reserve, a client's wish and the grammar's beginning, drawn to fall on the same tokens."""
    interrupt = Interrupt()
    model = goes_on(THOUGHT, "the answer")
    route = build_route(
        "r",
        CONTROLLERS["mode"],
        FAMILIES["lhrm"],
        engine(model),
        Defaults("think", budgets=BudgetSettings(reserve=reserve)),
    )
    policy = Policy("think", "client", budget=budget, requested=budget, tolerance=tolerance, reserve=reserve)
    shape = AnswerFormat(Grammar("regex", ".*"), required=True) if grammar else None

    async def collect() -> list[Event]:
        events: list[Event] = []
        request = Conversation(ASK, interrupt=interrupt, shape=shape)
        async for event in route.controller(route, request, policy, Sampling(max_tokens=max_tokens)):
            events.append(event)
            if sum(len(each.token_ids) for each in events if isinstance(each, Chunk)) >= asks_at:
                interrupt.ask("cancel" if cancel else "answer")
        return events

    events = asyncio.run(collect())
    end = events[-1]
    assert isinstance(end, Finished)
    chunks = [event for event in events if isinstance(event, Chunk)]
    assert end.completion_tokens == sum(len(chunk.token_ids) for chunk in chunks) <= max_tokens
    assert end.reasoning_tokens == sum(len(chunk.token_ids) for chunk in chunks if chunk.kind == "reasoning")
    if budget is not None and end.decision.mode == "think":
        assert end.reasoning_tokens <= budget
    if end.cut_by == "reserve":
        assert end.answer_tokens <= max_tokens - end.reasoning_tokens
    assert (end.cut is None) == (end.cut_by is None)
    assert [a.kind for a, b in pairwise(chunks) if (a.kind, b.kind) == ("answer", "reasoning")] == []


class ThirdToken(Rule):
    """Ends the thinking behind its third token."""

    def asleep_until(self, state: ReplyState) -> int:
        return 3

    def after_token(self, state: ReplyState) -> Action | None:
        thinking = state.parser.section == "reasoning" and state.position >= 3
        return Action((state.route.closing,), cut="hard", cut_by="budget") if thinking else None


def test_a_rule_is_added_by_one_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers.rules, "RULES", {**controllers.rules.RULES, "third": lambda context: ThirdToken()})
    route = build_route("r", CONTROLLERS["mode"], FAMILIES["lhrm"], engine(goes_on(THOUGHT, "so")), Defaults("think"))
    end = run(route, Policy("think", "client"), Sampling())[-1]
    assert isinstance(end, Finished)
    assert (end.reasoning_tokens, end.cut, end.answer_tokens > 0) == (3, "hard", True)


FIELDS = {"cache_salt": "tenant", "priority": 7}


@pytest.mark.parametrize("method", ["takeover", "accept"])
def test_every_engine_request_carries_salt_and_priority(method: str) -> None:
    """The threshold's probe, the segments of both models and the scores."""
    small, large = goes_on(THOUGHT, "so"), Model(TOKENIZER, lambda reply: TARGET)
    scored = (lambda prompt, sampling: "0") if method == "accept" else None

    def target(prompt: Prompt, sampling: Sampling) -> Any:
        line = large(prompt, sampling)
        return scored(prompt, sampling) if scored and sampling.max_tokens == 1 else line

    probed = Model(TOKENIZER, lambda reply: "")

    def script(prompt: Prompt, sampling: Sampling) -> Any:
        if sampling.logprob_token_ids:
            probed(prompt, sampling)
            return ScriptedReply("<think>", logprobs=dict.fromkeys(sampling.logprob_token_ids, -0.5))
        return small(prompt, sampling)

    route = build_route("r", CONTROLLERS["mode"], FAMILIES["lhrm"], engine(script), Defaults("auto"))
    settings = SpeculativeConfig(target="large", method=method)  # type: ignore[arg-type]
    route = with_target(route, engine(target, name="large"), settings, CircuitBreaker())
    policy = Policy("auto", "route", think_threshold=0.1, budget=30, requested=30)
    run(route, policy, Sampling(priority=7), cache_salt="tenant")
    for model in (small, large, probed):
        assert model.prompts
        assert {prompt.cache_salt for prompt in model.prompts} == {"tenant"}
        assert {sampling.priority for sampling in model.sampling} == {7}


def test_a_route_that_fails_with_its_target_fails_each_time() -> None:
    dead = engine([ScriptedReply("x", error=EngineDead("gone"))], name="large")
    route = build_route("r", CONTROLLERS["mode"], FAMILIES["lhrm"], engine(goes_on(THOUGHT, "so")), Defaults("think"))
    route = with_target(route, dead, SpeculativeConfig(target="dead", on_failure="fail"), CircuitBreaker())
    for _ in range(3):
        with pytest.raises(EngineDead):
            run(route, Policy("think", "client"), Sampling())
