"""Answers under a grammar and with tool calls, over scripted engines."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from controllers import CONTROLLERS
from controllers.generation.answer_format import AnswerFormat, shape
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt
from controllers.generation.prompt import prompt_tokens
from controllers.generation.route import Route, build_route
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Defaults, Policy
from models.engines.base import Grammar, Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.formats.reasoning import ReasoningFormat
from models.text.tokenizer import HubTokenizer
from models.tool_calls.tools import Tool
from tests.formats import HERMES, tokenizer_of

JSON = AnswerFormat(Grammar("json_object", True), required=True)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
THINK = Policy("think", "client")
MINE = Policy("auto", "route")
THOUGHT = "1+1=2\n" * 6


class Model:
    """Goes on where the prompt ends, and remembers which segments were under a grammar."""

    def __init__(self, tokenizer: HubTokenizer, answer: str, first: str | None = None) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.first = f"<think>{THOUGHT}</think>{answer}" if first is None else first
        self.grammars: list[Grammar | None] = []
        self.said: list[str] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        said = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
        self.said.append(said)
        self.grammars.append(sampling.grammar)
        assert prompt.reasoning_ended is (True if sampling.grammar else None)
        if sampling.grammar is not None or "</think>" in said:
            return self.answer
        return self.first.removeprefix("<think>") if "<think>" in said else self.first


def route_of(model: Model, family: str | ReasoningFormat = "lhrm", **engine: float) -> Route:
    kind = FAMILIES[family] if isinstance(family, str) else family
    known = tokenizer_of(kind.name) if kind.name == "deepseek_r1" else model.tokenizer
    over = ScriptedEngine(known, model, **engine)  # type: ignore[arg-type]
    return build_route("r", CONTROLLERS["mode"], kind, over, Defaults("auto"))


def reply(
    route: Route, form: AnswerFormat | None, policy: Policy = MINE, sampling: Sampling | None = None, wish: str = ""
) -> list[Event]:
    async def collect() -> list[Event]:
        interrupt = Interrupt()
        request = Conversation([{"role": "user", "content": "hi"}], shape=form, interrupt=interrupt)
        events = []
        async for event in route.controller(route, request, policy, sampling or Sampling()):
            events.append(event)
            if wish:
                assert interrupt.refusal == wish
        return events

    return asyncio.run(collect())


def text(events: Sequence[Event], kind: str = "answer") -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == kind)


def end(events: Sequence[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def all_ids(events: Sequence[Event]) -> int:
    return sum(len(event.token_ids) for event in events if isinstance(event, Chunk))


def test_a_shape_is_none_where_any_text_will_do():
    assert shape(HERMES, [], "auto", single=False, text=None) is None
    assert shape(HERMES, [Tool("f")], "none", single=False, text=None) is None
    assert shape(HERMES, [Tool("f")], "none", single=False, text=JSON.grammar) == JSON
    free = shape(HERMES, [Tool("f")], "auto", single=False, text=None)
    assert free is not None
    assert (free.calls, free.required) == (HERMES, False)
    must = shape(HERMES, [Tool("f")], "required", single=True, text=None)
    assert must is not None
    assert (must.single, must.required) == (True, True)


@pytest.mark.parametrize("family", ["lhrm", "qwen3", "deepseek_r1"])
def test_the_grammar_is_on_from_the_first_token_of_the_answer(tokenizer, family):
    model = Model(tokenizer, "{}")
    events = reply(route_of(model, family), JSON, THINK)
    assert (text(events, "reasoning"), text(events)) == (THOUGHT, "{}")
    assert model.grammars == [None, JSON.grammar]
    assert model.said[-1].endswith(FAMILIES[family].closing), "the closing text is whole before the answer"
    assert end(events).segments == 2
    assert end(events).completion_tokens == all_ids(events)


def test_a_route_that_does_not_think_has_the_grammar_at_once(tokenizer):
    model = Model(tokenizer, "{}")
    assert text(reply(route_of(model, "plain"), JSON, Policy("no_think", "route"))) == "{}"
    assert model.grammars == [JSON.grammar]


def test_a_model_that_begins_its_answer_without_a_tag_begins_it_again(tokenizer):
    model = Model(tokenizer, "{}", first="the answer")
    events = reply(route_of(model), JSON)
    assert text(events) == "{}"
    assert end(events).discarded_tokens == 1
    assert isinstance(events[0], Decision)
    assert events[0].mode == "no_think"


def test_a_model_that_ends_in_mid_thought_is_led_to_its_answer(tokenizer):
    model = Model(tokenizer, "{}", first="<think>hm")
    events = reply(route_of(model), JSON)
    assert (text(events, "reasoning"), text(events), end(events).reason) == ("hm", "{}", "stop")


def test_a_limit_that_the_thinking_reaches_leaves_nothing_to_begin(tokenizer):
    model = Model(tokenizer, "{}", first="<think>1+1=2</think>{}")
    thought = len(tokenizer.encode_control("<think>1+1=2"))
    for most in (thought, thought + 1):
        events = reply(route_of(model), JSON, sampling=Sampling(max_tokens=most))
        assert (text(events), end(events).reason) == ("", "length")
    events = reply(route_of(model, "qwen3"), JSON, THINK, Sampling(max_tokens=thought))
    assert (text(events), end(events).reason, all_ids(events)) == ("", "length", thought)


def test_a_format_needs_tags_that_are_tokens_and_calls_do_without(tokenizer):
    spelled = replace(FAMILIES["lhrm"], thinking=("<hm>", "</hm>"), behind={"think": "<hm>"}, closing="</hm>")
    model = Model(tokenizer, CALL, first=f"1+1</hm>{CALL}")
    with pytest.raises(PolicyError, match="no tokens"):
        reply(route_of(model, spelled), JSON, THINK)
    events = reply(route_of(model, spelled), AnswerFormat(JSON.grammar, HERMES), THINK)
    assert (text(events, "tool"), end(events).calls) == ('{"a": 1}', 1)
    assert model.grammars == [None, None][: len(model.grammars)]


def test_a_format_behind_thinking_cannot_keep_up_penalties_and_calls_do_without(tokenizer):
    penalty = Sampling(presence_penalty=1.0)
    with pytest.raises(PolicyError, match="presence_penalty"):
        reply(route_of(Model(tokenizer, "{}")), JSON, sampling=penalty)
    model = Model(tokenizer, CALL)
    assert end(reply(route_of(model), AnswerFormat(JSON.grammar, HERMES), sampling=penalty)).calls == 1
    assert model.grammars == [None]


@pytest.mark.parametrize("budget", range(0, 40, 3))
@pytest.mark.parametrize("tolerance", [None, 8])
def test_no_budget_writes_into_a_call(tokenizer, budget, tolerance):
    model = Model(tokenizer, f"so {CALL}")
    policy = replace(THINK, budget=budget, requested=budget, tolerance=tolerance)
    events = reply(route_of(model), AnswerFormat(JSON.grammar, HERMES), policy)
    assert (text(events, "tool"), text(events)) == ('{"a": 1}', "so")
    assert end(events).reasoning_tokens <= budget


@pytest.mark.parametrize("budget", [3, 10, 20, 100])
def test_a_budget_for_the_whole_reply_cuts_a_call_short_and_writes_nothing_into_it(tokenizer, budget):
    model = Model(tokenizer, f"{CALL}</solution>", first=f"<budget>9</budget><solution>{CALL}</solution>")
    policy = Policy("think", "client", budget=budget, requested=budget, prefill=budget, reserve=2)
    refused = "the answer of this request is tool calls or has a format: it cannot be wrapped up"
    events = reply(route_of(model, "selfbudgeter"), AnswerFormat(JSON.grammar, HERMES), policy, wish=refused)
    assert '{"a": 1}'.startswith(text(events, "tool"))
    assert "final answer" not in text(events)
    assert model.grammars[-1] == JSON.grammar
    assert end(events).reason == ("stop" if budget == 100 else "length")


def test_a_model_that_declares_its_budget_has_the_grammar_in_its_solution(tokenizer):
    model = Model(tokenizer, "{}", first="<budget>9</budget><solution>1+1</solution>")
    events = reply(route_of(model, "selfbudgeter"), JSON, Policy("think", "route"))
    assert (text(events), end(events).budget.declared) == ("{}", 9)
    assert model.grammars == [None, JSON.grammar]


def test_a_reply_ends_behind_the_only_call_that_is_wanted(tokenizer):
    model = Model(tokenizer, f"{CALL}{CALL}")
    events = reply(route_of(model), AnswerFormat(None, HERMES, single=True))
    calls = [event.call for event in events if isinstance(event, Chunk) and event.call and event.call.name]
    assert [(call.number, call.name) for call in calls] == [(0, "add")]
    assert (end(events).calls, end(events).reason) == (1, "stop")
    assert end(events).completion_tokens == all_ids(events)


def test_what_looked_like_a_call_is_text_when_the_reply_ends(tokenizer):
    events = reply(route_of(Model(tokenizer, 'so <tool_call>{"na')), AnswerFormat(None, HERMES))
    assert (text(events), end(events).calls) == ('so <tool_call>{"na', 0)
    assert end(events).completion_tokens == all_ids(events)


def test_a_reply_that_is_cancelled_in_a_call_says_what_was_held_back(tokenizer):
    model = Model(tokenizer, "", first='<think>1</think><tool_call>{"na' + "x" * 900)
    route = route_of(model, token_delay=0.001)

    async def cancelled() -> list[Event]:
        interrupt, events = Interrupt(), list[Event]()
        request = Conversation(
            [{"role": "user", "content": "hi"}], shape=AnswerFormat(None, HERMES), interrupt=interrupt
        )
        asyncio.get_running_loop().call_later(0.2, interrupt.ask, "cancel")
        async for event in route.controller(route, request, MINE, Sampling()):
            events.append(event)
        return events

    events = asyncio.run(cancelled())
    assert end(events).cancelled
    assert text(events).startswith('<tool_call>{"nax')


def test_a_kind_cut_that_the_client_insists_on_is_refused_where_it_would_fall_into_a_call(tokenizer):
    route = route_of(Model(tokenizer, "{}"), "selfbudgeter")
    insisting = Policy("think", "client", budget=50, requested=50, reserve=5, insists=True)
    with pytest.raises(PolicyError, match=r"reasond\.cut: .*cannot be wrapped up"):
        reply(route, JSON, insisting)
    assert text(reply(route, JSON, replace(insisting, insists=False))) == "{}"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_tokens_of_a_prompt_are_counted_with_what_is_forced(tokenizer):
    route = route_of(Model(tokenizer, "{}"))
    request = Conversation([{"role": "user", "content": "hi"}])
    free = await prompt_tokens(route, request, MINE)
    assert await prompt_tokens(route, request, THINK) == free + 1
    budgeter = route_of(Model(tokenizer, "{}"), "selfbudgeter")
    bare = await prompt_tokens(budgeter, request, Policy("think", "route"))
    field = tokenizer.encode_control("<budget>50</budget><solution>")
    assert await prompt_tokens(budgeter, request, Policy("think", "client", prefill=50)) == bare + len(field)
