"""Deciders: who says whether a reply thinks, where its mode is auto."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

import controllers.deciders
from controllers import CONTROLLERS
from controllers.deciders import DECIDERS, load_decider
from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from controllers.deciders.fixed import Fixed
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt
from controllers.generation.route import Route, build_route
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Defaults, Policy, fold
from models.engines.base import EngineBusy, InvalidRequest, Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine, ScriptedReply
from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer

ASK = [{"role": "user", "content": "what is 17*23?"}]
AUTO = Policy("auto", "route", think_threshold=0.4)


class Script:
    """Thinks where it may, and gives the first letter with probability `first`, by what the prompt's end says."""

    def __init__(self, tokenizer: HubTokenizer, first: float = 0.5, error: Exception | None = None) -> None:
        self.tokenizer, self.first, self.error = tokenizer, first, error
        self.asked: list[str] = []
        self.prompts: list[str] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        text = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        if sampling.logprob_token_ids:
            self.asked.append(text)
            first, second = sampling.logprob_token_ids
            logprobs = {first: math.log(self.first), second: math.log(1 - self.first)}
            return ScriptedReply([] if self.error else [first], logprobs=logprobs, error=self.error)
        self.prompts.append(text)
        reply = text.rpartition("assistant\n")[2]
        return "direct" if "</think>" in reply or "<no_think>" in reply else "<think>hm</think>so"


def route_of(
    tokenizer: HubTokenizer, script: Script, settings: dict[str, Any], family: str = "qwen3", **engine: float
) -> Route:
    config = DECIDERS[settings["decider"]][0].model_validate(settings)
    scripted = ScriptedEngine(tokenizer, script, **engine)  # type: ignore[arg-type]
    defaults = Defaults("auto", decider=config.decider)
    route = build_route("r", CONTROLLERS["mode"], FAMILIES[family], scripted, defaults)
    return replace(route, decider=load_decider(config, tokenizer))


def run(route: Route, policy: Policy = AUTO, sampling: Sampling | None = None, **request: Any) -> list[Event]:
    async def collect() -> list[Event]:
        conversation = Conversation(request.pop("messages", ASK), **request)
        return [event async for event in route.controller(route, conversation, policy, sampling or Sampling())]

    return asyncio.run(collect())


def decision(events: list[Event]) -> Decision:
    return next(event for event in events if isinstance(event, Decision))


@pytest.mark.parametrize(("p_yes", "mode"), [(0.7, "think"), (0.3, "no_think")])
@pytest.mark.parametrize("both", [False, True])
def test_ask_holds_the_probability_of_yes_against_the_threshold(
    tokenizer: HubTokenizer, p_yes: float, mode: str, both: bool
) -> None:
    script = Script(tokenizer, p_yes)
    made = decision(run(route_of(tokenizer, script, {"decider": "ask", "both_orders": both})))
    expected = 0.5 if both else p_yes  # a model that favours the first letter has no opinion
    assert (made.chosen_by, made.threshold, made.decision_tokens) == ("ask", 0.4, 1 + both)
    assert made.p_think == pytest.approx(expected)
    assert made.mode == ("think" if both else mode)
    assert len(script.asked) == 1 + both
    assert all("Would working this out" in asked and "17*23" in asked for asked in script.asked)
    assert "Would working" not in script.prompts[0]


def test_ask_stands_behind_a_tool_s_result_as_a_turn_of_its_own(tokenizer: HubTokenizer) -> None:
    script = Script(tokenizer)
    run(route_of(tokenizer, script, {"decider": "ask"}), messages=[*ASK, {"role": "assistant", "content": "391"}])
    assert script.asked[0].rfind("391") < script.asked[0].rfind("Would working")


@pytest.mark.parametrize("system", [True, False])
def test_hint_adds_one_sentence_to_the_system_turn_and_thinks(tokenizer: HubTokenizer, system: bool) -> None:
    script = Script(tokenizer)
    messages = [*([{"role": "system", "content": "Be kind."}] if system else []), *ASK]
    events = run(route_of(tokenizer, script, {"decider": "hint", "text": "Be brief."}), messages=messages)
    assert (decision(events).mode, decision(events).chosen_by) == ("think", "hint")
    assert script.prompts[0].count("Be brief.") == 1
    assert ("Be kind.\n\nBe brief." in script.prompts[0]) == system
    assert decision(events).prompt == tokenizer.encode_control(script.prompts[0])


@pytest.mark.parametrize(("name", "mode"), [("always", "think"), ("never", "no_think")])
def test_always_and_never_look_at_nothing(tokenizer: HubTokenizer, name: str, mode: str) -> None:
    made = decision(run(route_of(tokenizer, Script(tokenizer), {"decider": name})))
    assert (made.mode, made.chosen_by, made.record()) == (mode, name, {"mode": mode, "chosen_by": name})


def test_random_thinks_at_its_rate_and_the_same_for_the_same_seed(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer, Script(tokenizer), {"decider": "random", "rate": 0.25})
    made = [decision(run(route, sampling=Sampling(seed=seed))).mode for seed in range(200)]
    assert 25 < made.count("think") < 75
    assert made == [decision(run(route, sampling=Sampling(seed=seed))).mode for seed in range(200)]


@pytest.mark.parametrize("name", ["model", "probe"])
def test_a_model_with_mode_tokens_may_still_be_asked_itself(tokenizer: HubTokenizer, name: str) -> None:
    script = Script(tokenizer, 0.9)
    made = decision(run(route_of(tokenizer, script, {"decider": name}, family="lhrm")))
    assert (made.mode, made.chosen_by) == ("think", "model" if name == "model" else "threshold")


def test_a_decider_that_fails_or_is_slow_lets_the_reply_think_and_says_so(tokenizer: HubTokenizer) -> None:
    for error, failure in ((EngineBusy("full"), "busy"), (RuntimeError("x"), None)):
        route = route_of(tokenizer, Script(tokenizer, error=error), {"decider": "ask"})
        if failure is None:
            with pytest.raises(RuntimeError):
                run(route)
        else:
            made = decision(run(route))
            assert (made.mode, made.record()["decider_failure"]) == ("think", failure)
    slow = route_of(tokenizer, Script(tokenizer), {"decider": "ask", "patience": 0.01}, first_token_delay=0.2)
    assert decision(run(slow)).record()["decider_failure"] == "slow"


def test_what_the_client_got_wrong_stays_its_error(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer, Script(tokenizer), {"decider": "ask"})
    with pytest.raises(InvalidRequest):
        run(replace(route, adapter="none such"))


def test_a_client_that_cancels_waits_for_no_decider(tokenizer: HubTokenizer) -> None:
    interrupt = Interrupt()
    interrupt.ask("cancel")
    events = run(route_of(tokenizer, Script(tokenizer), {"decider": "ask"}), interrupt=interrupt)
    assert isinstance(events[-1], Finished)
    assert events[-1].cancelled


def test_auto_needs_a_decider_where_the_model_does_not_choose() -> None:
    family = FAMILIES["qwen3"]
    with pytest.raises(PolicyError, match="no mode auto"):
        fold({"reasond": {"mode": "auto"}}, family, Defaults("think"))
    assert fold({"reasond": {"mode": "auto"}}, family, Defaults("think", decider="ask")).mode == "auto"


def test_letters_of_several_tokens_are_refused_at_start(tokenizer: HubTokenizer) -> None:
    class Spelled:
        def encode(self, text: str) -> list[int]:
            return [1, 2]

    with pytest.raises(ValueError, match="one token"):
        load_decider(DECIDERS["ask"][0].model_validate({"decider": "ask"}), Spelled())  # type: ignore[arg-type]


class OnlyShort:
    async def decide(self, question: Question) -> ModeVerdict | None:
        words = sum(len(str(message["content"]).split()) for message in question.request.messages)
        return ModeVerdict("think" if words > 5 else "no_think", "never")


def test_a_decider_is_added_by_one_line_of_the_table(tokenizer: HubTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**DECIDERS, "short": (DeciderConfig, lambda config, tokenizer: OnlyShort())}
    monkeypatch.setattr(controllers.deciders, "DECIDERS", table)
    route = route_of(tokenizer, Script(tokenizer), {"decider": "always"})
    route = replace(route, decider=load_decider(DeciderConfig(decider="short"), tokenizer))
    assert decision(run(route)).mode == "no_think"
    assert decision(run(route, messages=[{"role": "user", "content": "a b c d e f"}])).mode == "think"
    assert isinstance(Fixed("think"), Fixed)
