"""Think, do not think, or let the model or a threshold decide."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from controllers.concurrency import gather
from controllers.generation.events import Conversation, Decision, Event, Finished
from controllers.generation.route import Route
from controllers.policy.fold import Policy
from models.engines.base import Delta, EngineDead, Prompt, PromptTooLong, Sampling
from models.engines.scripted import Line, ScriptedReply
from models.formats.chunks import Chunk
from models.formats.vocabulary import compile_tags
from models.text.tokenizer import HubTokenizer
from tests.controllers.conftest import MakeRoute

pytestmark = pytest.mark.every_step

ASK = Conversation([{"role": "user", "content": "hi"}])
AUTO = Policy("auto", "route")


def reply(route: Route, policy: Policy = AUTO, sampling: Sampling | None = None) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in route.controller(route, ASK, policy, sampling or Sampling())]

    return asyncio.run(collect())


def text(events: list[Event], kind: str) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == kind)


def end(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_the_models_own_first_token_decides_in_auto(make_route: MakeRoute) -> None:
    thought = reply(make_route(["<think>2+2</think>4"]))
    assert isinstance(thought[0], Decision)
    assert thought[0].record() == {"mode": "think", "chosen_by": "model"}
    assert (text(thought, "reasoning"), text(thought, "answer")) == ("2+2", "4")
    direct = reply(make_route(["<no_think>4</no_think>"]))
    assert end(direct).record == {"mode": "no_think", "chosen_by": "model"}
    assert (text(direct, "reasoning"), text(direct, "answer")) == ("", "4")


def test_a_forced_mode_is_a_prefix_that_the_prompt_ends_with(make_route: MakeRoute, tokenizer: HubTokenizer) -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        seen.append(prompt)
        return "2+2</think>4"

    events = reply(make_route(script), Policy("think", "client"))
    assert tokenizer.decode(seen[0].token_ids[-1:]) == "<think>"
    assert end(events).record == {"mode": "think", "chosen_by": "client"}
    assert end(events).prompt_tokens == len(seen[0].token_ids)
    assert (text(events, "reasoning"), text(events, "answer")) == ("2+2", "4")


def test_no_thinking_on_a_qwen3_route_is_an_empty_block(make_route: MakeRoute, tokenizer: HubTokenizer) -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        seen.append(prompt)
        return "4"

    events = reply(make_route(script, family="qwen3"), Policy("no_think", "client"))
    assert tokenizer.decode(seen[0].token_ids).endswith("assistant\n<think>\n\n</think>\n\n")
    assert (text(events, "reasoning"), text(events, "answer")) == ("", "4")


def test_a_threshold_asks_for_the_probability_and_forces_the_winner(
    make_route: MakeRoute, tokenizer: HubTokenizer
) -> None:
    think, direct = tokenizer.encode_control("<think><no_think>")
    asked: list[Sampling] = []

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        asked.append(sampling)
        if sampling.logprob_token_ids:
            return ScriptedReply([think], logprobs={think: math.log(0.3), direct: math.log(0.6)})
        return "2+2</think>4" if prompt.token_ids[-1] == think else "4</no_think>"

    route = make_route(script)
    low = reply(route, Policy("auto", "route", 0.3))
    assert end(low).decision.mode == "think"
    assert end(low).decision.chosen_by == "threshold"
    assert end(low).record["p_think"] == pytest.approx(1 / 3, abs=1e-6)  # 0.3 / (0.3 + 0.6)
    high = reply(route, Policy("auto", "route", 0.4))
    assert (end(high).decision.mode, text(high, "answer")) == ("no_think", "4")
    assert asked[0].max_tokens == 1
    assert set(asked[0].allowed_token_ids) == {think, direct}


def test_counts_are_of_token_ids_and_exclude_tags(make_route: MakeRoute) -> None:
    finished = end(reply(make_route(["<think>1+1</think>2"])))
    # <think> 1 + 1 </think> 2 <end>: three of thinking, two of the answer with its end, two tags
    assert (finished.reasoning_tokens, finished.answer_tokens, finished.completion_tokens) == (3, 2, 7)
    assert finished.reason == "stop"


def test_a_reply_cut_inside_its_thinking_has_no_answer(make_route: MakeRoute) -> None:
    events = reply(make_route(["<think>1+1</think>2"]), sampling=Sampling(max_tokens=3))
    assert (end(events).reason, text(events, "reasoning"), text(events, "answer")) == ("length", "1+", "")


def test_a_reply_that_ends_at_once_has_a_decision_all_the_same(make_route: MakeRoute) -> None:
    events = reply(make_route([""]))
    assert [type(event) for event in events] == [Decision, Chunk, Finished]
    assert end(events).decision.mode == "no_think"


def test_stray_tags_before_the_decision_are_counted_all_the_same(make_route: MakeRoute) -> None:
    events = reply(make_route(["</think></think><think>1</think>2"]))
    assert isinstance(events[0], Decision)
    assert end(events).completion_tokens == 7
    assert sum(len(event.token_ids) for event in events if isinstance(event, Chunk)) == 7


def test_a_first_word_that_is_held_back_waits_for_its_section(make_route: MakeRoute) -> None:
    route = make_route(["<think>"], family="lhrm")
    thinking = replace(route.family, thinking=("<thinking>", "</thinking>"), closing="</thinking>", direct=None)
    spelled = replace(route, tags=compile_tags(thinking, route.engine.tokenizer))
    events = reply(spelled)
    assert (text(events, "answer"), end(events).decision.mode) == ("<think>", "no_think")


def test_stop_strings_end_the_answer_and_are_text_in_the_thinking(make_route: MakeRoute) -> None:
    route = make_route(["<think>a.b.</think>c.d."])
    events = reply(route, sampling=Sampling(stop=(".",)))
    assert (text(events, "reasoning"), text(events, "answer")) == ("a.b.", "c")
    assert (end(events).reason, end(events).stopped_by) == ("stop", ".")
    shown = reply(route, sampling=Sampling(stop=(".d",), include_stop=True))
    assert text(shown, "answer") == "c.d"
    assert route.engine.running() == 0


def test_a_stop_string_ends_the_reply_once_however_much_the_model_had_left_to_say(make_route: MakeRoute) -> None:
    route = make_route(["<no_think>One. Two. Three</no_think>"])
    events = reply(route, sampling=Sampling(stop=(".",)))
    assert [event for event in events if isinstance(event, Finished)] == [end(events)]
    assert text(events, "answer") == "One"
    assert end(events).completion_tokens < len(route.engine.tokenizer.encode("One. Two. Three"))
    assert route.engine.running() == 0


def test_stop_strings_count_only_beyond_the_tokens_that_must_come(make_route: MakeRoute) -> None:
    route = make_route(["<no_think>a. b. c</no_think>"])
    fewest = len(route.engine.tokenizer.encode("a.")) + 1  # and the tag
    assert text(reply(route, sampling=Sampling(stop=(".",))), "answer") == "a"
    assert text(reply(route, sampling=Sampling(stop=(".",), min_tokens=fewest)), "answer") == "a. b"


def test_text_held_for_a_stop_string_that_never_came_is_answered(make_route: MakeRoute) -> None:
    assert text(reply(make_route(["<no_think>ab"]), sampling=Sampling(stop=("bc",))), "answer") == "ab"


def test_closing_the_reply_aborts_the_engines_request(make_route: MakeRoute) -> None:
    route = make_route(["<think>" + "1+" * 100], token_delay=0.001)

    async def leave() -> None:
        async with aclosing(route.controller(route, ASK, AUTO, Sampling())) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    assert route.engine.running() == 1
                    break
        assert route.engine.running() == 0

    asyncio.run(leave())


def test_the_engines_errors_travel(make_route: MakeRoute) -> None:
    with pytest.raises(EngineDead):
        reply(make_route([ScriptedReply("<think>1", error=EngineDead("gone"))]))
    with pytest.raises(PromptTooLong):
        reply(make_route(["a"], context_length=3))


def test_cached_tokens_are_reported(make_route: MakeRoute) -> None:
    assert end(reply(make_route([ScriptedReply("<think>1", cached_tokens=32)]))).cached_tokens == 32


def test_a_probe_without_an_answer_is_an_error(make_route: MakeRoute) -> None:
    class Mute:
        def __init__(self, route: Route, speaks: bool) -> None:
            self.tokenizer = route.engine.tokenizer
            self.speaks = speaks

        async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
            if self.speaks:
                yield Delta((1,), ("a",))

    from dataclasses import replace

    route = make_route([""])
    for speaks in (True, False):
        with pytest.raises(RuntimeError, match="no log-probabilities"):
            reply(replace(route, engine=Mute(route, speaks)), Policy("auto", "route", 0.5))  # type: ignore[arg-type]


def choices(route: Route, count: int) -> list[tuple[int, Event]]:
    """The events of several replies that are written side by side, as they come."""
    found: list[tuple[int, Event]] = []

    async def read(index: int) -> None:
        async for event in route.controller(route, ASK, AUTO, Sampling()):
            found.append((index, event))

    asyncio.run(gather([read(index) for index in range(count)]))
    return found


def test_choices_run_side_by_side_and_keep_their_own_order(make_route: MakeRoute) -> None:
    route = make_route([f"<think>{'12' * 40}</think>3", f"<no_think>{'45' * 40}</no_think>"], token_delay=0.001)
    events = choices(route, 2)
    assert [text([event for i, event in events if i == index], "answer") for index in (0, 1)] == ["3", "45" * 40]
    first_end = next(at for at, (_, event) in enumerate(events) if isinstance(event, Finished))
    assert {index for index, _ in events[:first_end]} == {0, 1}


def test_the_first_error_ends_all_choices(make_route: MakeRoute) -> None:
    route = make_route([ScriptedReply("<think>1", error=EngineDead("gone")), "<think>" + "1" * 500], token_delay=0.001)
    with pytest.raises(EngineDead):
        choices(route, 2)
    assert route.engine.running() == 0
