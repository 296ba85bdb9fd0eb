"""Two models at one reply, over scripted engines."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import cache
from itertools import pairwise

import pytest

from controllers import CONTROLLERS
from controllers.generation.answer_format import AnswerFormat
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt
from controllers.generation.route import Route, build_route, with_target
from controllers.generation.steps import Cues
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Defaults, Policy, fold
from controllers.policy.speculation import CueList, SpeculativeConfig, TakeoverCaps, TakeoverLimits
from controllers.speculative.takeovers import guide_for
from models.engines.base import EngineBusy, EngineDead, EngineError, Grammar, InvalidRequest, Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine, ScriptedReply
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.text.tokenizer import HubTokenizer
from tests import virtual_time
from tests.controllers.stories import WORDS, Model, other_tokenizer, rambles, recites
from tests.formats import HERMES

ASK = [{"role": "user", "content": "hi"}]
THINK = Policy("think", "client")
START = "Try 3.\n\n"
SMALL = f"{START}Wait, small turns. And on.\n\nSo it is small.</think>small answers"
TARGET = "Hold on, the target writes this and goes on for as long as it may. " * 20


class Pair:
    """A route over two scripted models, and the two."""

    def __init__(
        self,
        tokenizer: HubTokenizer,
        small: Callable[[str], str] | str,
        target: Callable[[str], str] | str,
        lengths: TakeoverLimits | None = None,
        *,
        other: HubTokenizer | None = None,
        family: str = "lhrm",
        mode: str = "think",
        thinking: tuple[str, str] | None = None,
        small_delays: dict[str, float] | None = None,
        target_delays: dict[str, float] | None = None,
        context_length: int = 8192,
        target_context: int = 16384,
        **settings: object,
    ) -> None:
        self.small = Model(tokenizer, recites(small) if isinstance(small, str) else small)
        self.target = Model(other or tokenizer, (lambda reply: target) if isinstance(target, str) else target)
        self.small_engine = ScriptedEngine(
            tokenizer, self.small, name="small", context_length=context_length, thinking=thinking, **small_delays or {}
        )
        self.target_engine = ScriptedEngine(
            self.target.tokenizer, self.target, name="target", context_length=target_context, **target_delays or {}
        )
        self.outage = CircuitBreaker()
        route = build_route("r", CONTROLLERS["speculative"], FAMILIES[family], self.small_engine, Defaults(mode))  # type: ignore[arg-type]
        settings = {"patience": None, "rest_seconds": 60.0, **asdict(lengths or TakeoverLimits()), **settings}
        self.settings = SpeculativeConfig(target="target", **settings)  # type: ignore[arg-type]
        self.route: Route = with_target(route, self.target_engine, self.settings, self.outage)

    def events(
        self, policy: Policy = THINK, sampling: Sampling | None = None, interrupt: Interrupt | None = None
    ) -> list[Event]:
        return asyncio.run(self.collect(policy, sampling, interrupt))

    async def collect(
        self, policy: Policy = THINK, sampling: Sampling | None = None, interrupt: Interrupt | None = None
    ) -> list[Event]:
        request = Conversation(ASK, interrupt=interrupt)
        stream = self.route.controller(self.route, request, policy, sampling or Sampling())
        return [event async for event in stream]


MakePair = Callable[..., Pair]


@pytest.fixture
def pair(tokenizer: HubTokenizer) -> MakePair:
    return lambda *args, **settings: Pair(tokenizer, *args, **settings)


@pytest.fixture(scope="session")
def in_bytes() -> HubTokenizer:
    return other_tokenizer("bytes")


def text(events: Sequence[Event], kind: str | None = None, target: bool | None = None) -> str:
    chunks = [event for event in events if isinstance(event, Chunk)]
    return "".join(c.text for c in chunks if kind in (None, c.kind) and target in (None, c.target))


def arrivals(two: Pair) -> list[tuple[float, Chunk]]:
    """The chunks of a reply, and when they came."""

    async def collect() -> list[tuple[float, Chunk]]:
        clock = asyncio.get_running_loop().time
        stream = two.route.controller(two.route, Conversation(ASK), THINK, Sampling())
        return [(clock(), event) async for event in stream if isinstance(event, Chunk)]

    return virtual_time.run(collect())


def end(events: Sequence[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def use(events: Sequence[Event]):
    found = end(events).target
    assert found is not None
    return found


def count(tokenizer: HubTokenizer, said: str) -> int:
    return len(tokenizer.encode(said))


def test_a_reflection_is_written_by_the_target_and_the_small_model_goes_on(pair: MakePair, tokenizer) -> None:
    two = pair(lambda reply: "small goes on</think>yes" if "Hold" in reply else recites(SMALL)(reply), TARGET)
    events = two.events()
    takeover = tokenizer.decode(tokenizer.encode(TARGET)[:20])
    assert text(events, "reasoning") == START + takeover + "small goes on"
    assert text(events, "answer") == "yes"
    assert text(events, target=True) == takeover
    assert two.target.asked == ["<think>" + START]
    assert two.small.asked == ["<think>", "<think>" + START + takeover]
    assert two.target.sampling[0].max_tokens == 20
    done = use(events)
    assert (done.takeovers, done.target_tokens, done.failure) == ({"reflection": 1}, 20, None)
    assert end(events).discarded_tokens == count(tokenizer, "Wait, small turns. ")
    assert end(events).completion_tokens == sum(len(e.token_ids) for e in events if isinstance(e, Chunk))
    assert end(events).record["target_share"] == round(20 / end(events).completion_tokens, 6)


def test_statements_stand_without_another_request(pair: MakePair) -> None:
    two = pair("One.\n\nSo two.\n\nThen three.</think>four", TARGET)
    events = two.events()
    assert text(events, "reasoning") == "One.\n\nSo two.\n\nThen three."
    assert (len(two.small.asked), two.target.asked, end(events).discarded_tokens) == (1, [], 0)
    assert use(events).held_seconds > 0
    assert end(events).record["segments"] == 1


def test_text_is_held_from_a_delimiter_to_its_sentence_s_end_and_no_longer(pair: MakePair) -> None:
    thought = "One two three.\n\nSo four five six. Seven eight nine."
    two = pair(f"{thought}</think>ten", TARGET, small_delays={"token_delay": 0.01})

    together: dict[float, list[str]] = {}
    for time, chunk in arrivals(two):
        together.setdefault(time, []).append(chunk.text)
    (held,) = ["".join(texts) for texts in together.values() if len(texts) > 1]
    assert held.startswith("So four five six.") and "eight" not in held
    assert len(together) > 10  # everything else came token by token


def test_chunks_of_both_models_come_when_their_tokens_do(pair: MakePair, tokenizer) -> None:
    """Time stamps in milliseconds. What is held costs the tokens that it takes to know the sentence, a hand-over what
    the engine takes for its first token, and nothing else."""
    two = pair(
        lambda reply: "small goes on</think>yes" if "Hold" in reply else recites(SMALL)(reply),
        TARGET,
        small_delays={"first_token_delay": 0.020, "token_delay": 0.001},
        target_delays={"first_token_delay": 0.100, "token_delay": 0.010},
    )
    came = [(round(1000 * time, 3), chunk.target) for time, chunk in arrivals(two) if chunk.token_ids]
    before = count(tokenizer, START)
    held = count(tokenizer, "Wait, small turns. ")  # a full stop is one when a blank follows
    assert came[0] == (20.0, False)
    gaps = [(round(after - at, 3), target) for (at, _), (after, target) in pairwise(came)]
    assert gaps[: before - 1] == [(1.0, False)] * (before - 1)
    assert gaps[before - 1] == (held + 100.0, True)
    assert gaps[before : before + 19] == [(10.0, True)] * 19
    assert gaps[before + 19] == (20.0, False)
    assert set(gaps[before + 20 :]) == {(1.0, False)}


def test_a_verification_takes_its_own_length_and_hands_over_at_the_cue(pair: MakePair, tokenizer) -> None:
    small = f"{START}Let me check: all of this is thrown away</think>x"
    two = pair(
        lambda r: "done</think>x" if "Hold" in r else recites(small)(r), TARGET, TakeoverLimits(verification_tokens=40)
    )
    events = two.events()
    assert use(events).takeovers == {"verification": 1}
    assert use(events).target_tokens == 40
    assert end(events).discarded_tokens == count(tokenizer, "Let me check:")


def test_a_verification_in_the_target_s_own_sentence_extends_its_turn_once(pair: MakePair) -> None:
    target = "Hold on, let me verify this. " * 40
    two = pair(
        lambda r: "done</think>x" if "Hold" in r else recites(SMALL)(r), target, TakeoverLimits(verification_tokens=30)
    )
    events = two.events()
    assert use(events).takeovers == {"reflection": 1}
    assert use(events).target_tokens == 50
    assert [sampling.max_tokens for sampling in two.target.sampling] == [20, 30]


def test_excessive_reflection_brings_the_prompt_and_a_longer_turn_that_grows(pair: MakePair, tokenizer) -> None:
    lengths = TakeoverLimits(takeover_tokens=0, verification_tokens=0, excess_tokens=10, excess_after=2)
    small = "a.\n\n" + "Wait, no.\n\n" * 20 + "end</think>x"

    def goes_on(reply: str) -> str:
        return "on.\n\n" + "Wait, no.\n\n" * 3 + "more</think>x" if "steps." in reply else small

    two = pair(goes_on, "target " * 40, lengths, excess_after_step=1, excess_tokens_step=4, excess_tokens_most=12)
    events = two.events()
    prompt = "Let us check whether there are some wrong steps."
    forced = [event for event in events if isinstance(event, Chunk) and event.forced and event.kind == "reasoning"]
    assert "".join(chunk.text for chunk in forced) == 2 * prompt
    assert not any(chunk.target for chunk in forced)
    assert use(events).takeovers == {"excess": 2}
    assert [sampling.max_tokens for sampling in two.target.sampling] == [10, 12]
    assert two.target.asked[0].endswith("a.\n\nWait, no.\n\nWait, no.\n\n" + prompt)
    assert text(events, "reasoning").count("Wait, no.") == 2 + 3 + 3


def test_what_the_target_writes_counts_as_negative_too(pair: MakePair) -> None:
    """One reflection of the target's (the small model's was replaced), and the next delimiter is one too many."""
    small = lambda r: "on.\n\nso</think>x" if "Hold" in r else recites(SMALL)(r)  # noqa: E731
    two = pair(small, "Hold on, it is. So " * 30, TakeoverLimits(excess_after=1, excess_tokens=7))
    assert use(two.events()).takeovers == {"reflection": 1, "excess": 1}


def test_a_small_model_that_does_not_reason_gets_the_opening_and_every_delimiter(pair: MakePair) -> None:
    two = pair(
        lambda reply: "a b.\n\nc d.\n\ne</think>x" if reply.count("\n\n") < 2 else "f</think>x",
        "target ",
        TakeoverLimits(takeover_tokens=1, opening_tokens=1),
        small_reasons=False,
    )
    events = two.events()
    assert use(events).takeovers == {"opening": 1, "step": 2}
    assert two.target.asked[0] == "<think>"
    assert text(events, "reasoning").startswith("ta")
    assert end(events).discarded_tokens == 0


def test_a_model_without_thinking_tags_is_helped_in_its_answer(pair: MakePair) -> None:
    two = pair(
        lambda r: "the small end" if "tar" in r else "x y.\n\nWait, z.", "target. " * 9, family="plain", mode="no_think"
    )
    events = two.events(Policy("no_think", "route"))
    assert text(events, "answer").startswith("x y.\n\ntarget")
    assert use(events).takeovers == {"reflection": 1}
    assert isinstance(events[0], Decision)


def test_where_the_answer_is_the_thought_the_target_may_end_the_reply(pair: MakePair) -> None:
    two = pair("x y.\n\nWait, z.", "the end", family="plain", mode="no_think")
    events = two.events(Policy("no_think", "route"))
    assert (text(events), end(events).reason) == ("x y.\n\nthe end", "stop")


def test_the_opening_of_a_model_without_tags_comes_before_anything_else(pair: MakePair) -> None:
    two = pair(" and small", "big", TakeoverLimits(opening_tokens=1), family="plain", mode="no_think")
    events = two.events(Policy("no_think", "route"))
    assert text(events).startswith("b")
    assert isinstance(events[0], Decision)


@pytest.mark.parametrize(
    "policy", [Policy("no_think", "client"), replace(THINK, target=False)], ids=["no thinking", "target off"]
)
def test_the_target_sleeps_where_it_is_not_wanted(pair: MakePair, policy: Policy) -> None:
    two = pair(lambda r: "<no_think>5" if "<" not in r else "a.\n\nWait, no.\n\nb", TARGET)
    events = two.events(policy)
    assert two.target.asked == []
    assert end(events).target is None
    assert "target_tokens" not in end(events).record


def test_a_model_that_decides_not_to_think_never_wakes_the_target(pair: MakePair) -> None:
    two = pair(lambda r: "<no_think>a.\n\nWait, no.\n\nb", TARGET)
    events = two.events(Policy("auto", "route"))
    assert text(events, "answer") == "a.\n\nWait, no.\n\nb"
    assert (two.target.asked, use(events).target_tokens) == ([], 0)


def test_a_model_that_decides_to_think_is_helped_and_the_target_reads_the_tag(pair: MakePair) -> None:
    two = pair(lambda r: "go</think>x" if "Hold" in r else f"<think>{START}Wait, so.", TARGET)
    events = two.events(Policy("auto", "route"))
    decision, *_ = events
    assert isinstance(decision, Decision) and decision.chosen_by == "model"
    assert two.target.asked == ["<think>" + START]
    assert use(events).takeovers == {"reflection": 1}


def test_an_opening_follows_the_tag_of_a_model_that_decides_to_think(pair: MakePair) -> None:
    two = pair(
        lambda r: "go</think>x" if "Hold" in r else "<think>never seen</think>",
        TARGET,
        TakeoverLimits(opening_tokens=5),
    )
    events = two.events(Policy("auto", "route"))
    assert text(events, "reasoning").startswith("Hold on")
    assert two.target.asked == ["<think>"]


def test_the_target_may_close_the_thinking_and_the_small_model_answers(pair: MakePair) -> None:
    two = pair(lambda r: "small answers" if "</think>" in r else recites(SMALL)(r), "Hold on.</think>target would")
    events = two.events()
    assert text(events, "reasoning") == START + "Hold on."
    assert text(events, "answer") == "small answers"
    assert two.small.asked[-1].endswith("Hold on.</think>")


def test_a_target_that_ends_its_turn_early_does_not_end_the_thinking(pair: MakePair) -> None:
    two = pair(lambda r: " and on</think>x" if "Hold" in r else recites(SMALL)(r), "Hold.")
    events = two.events()
    assert text(events, "reasoning") == START + "Hold. and on"
    assert end(events).completion_tokens == sum(len(e.token_ids) for e in events if isinstance(e, Chunk))


def test_a_target_with_nothing_to_say_is_not_asked_for_the_same_sentence_again(pair: MakePair) -> None:
    two = pair(SMALL, "")
    events = two.events()
    assert text(events, "reasoning") == SMALL.partition("</think>")[0]
    assert use(events).takeovers == {"reflection": 1}


def test_a_turn_that_ends_at_a_delimiter_leaves_the_next_sentence_to_be_classified(pair: MakePair) -> None:
    def small(reply: str) -> str:
        turns = reply.count("Hold")
        return recites(SMALL)(reply) if not turns else "Yes, again." if turns == 1 else "done</think>x"

    two = pair(small, "Hold.\n\n")
    assert use(two.events()).takeovers == {"reflection": 1, "affirmation": 1}


def test_a_sentence_that_the_closing_tag_ends_is_classified_with_it(pair: MakePair) -> None:
    two = pair(
        lambda r: "</think>x" if "\n\nH" in r else f"{START}Yes, so</think>never",
        "Hold",
        TakeoverLimits(takeover_tokens=1),
    )
    events = two.events()
    assert use(events).takeovers == {"affirmation": 1}
    assert text(events, "answer") == "x"


def test_a_reply_that_ends_in_an_open_sentence_keeps_it(pair: MakePair) -> None:
    two = pair(f"{START}so it", TARGET)
    assert text(two.events()) == f"{START}so it"


# Answers with a shape


def asked_for(two: Pair, shape: AnswerFormat, policy: Policy = THINK) -> list[Event]:
    async def collect() -> list[Event]:
        stream = two.route.controller(two.route, Conversation(ASK, shape=shape), policy, Sampling(whole=True))
        return [event async for event in stream]

    return asyncio.run(collect())


@pytest.mark.parametrize("target", ["Hold on.", "Hold on.</think>no"], ids=["small closes", "target closes"])
def test_a_grammar_holds_for_the_answer_and_that_is_the_small_model_s(pair: MakePair, target: str) -> None:
    two = pair(lambda r: "{}" if "</think>" in r else "so</think>no" if "Hold" in r else recites(SMALL)(r), target)
    events = asked_for(two, AnswerFormat(Grammar("json_object", True), required=True))
    assert (text(events, "answer"), use(events).takeovers) == ("{}", {"reflection": 1})
    *thinking, answering = two.small.sampling
    assert answering.grammar is not None
    assert not any(sampling.grammar or sampling.whole for sampling in (*thinking, *two.target.sampling))


def test_tool_calls_are_read_from_the_answer_behind_a_takeover(pair: MakePair) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    two = pair(lambda r: f"so</think>{call}" if "Hold" in r else recites(SMALL)(r), "Hold on.")
    events = asked_for(two, AnswerFormat(None, HERMES))
    assert (end(events).calls, use(events).takeovers) == (1, {"reflection": 1})
    assert text(events, "tool") == '{"a": 1}'


def test_an_answer_with_a_shape_and_no_thinking_before_it_is_the_small_model_s(pair: MakePair) -> None:
    two = pair("{}\n\nWait, {}", TARGET, family="plain", mode="no_think")
    events = asked_for(two, AnswerFormat(Grammar("json_object", True), required=True), Policy("no_think", "route"))
    assert (two.target.asked, end(events).target) == ([], None)


# Budgets and limits


@pytest.mark.parametrize("native", [None, ("<think>", "</think>")])
def test_one_budget_bounds_both_models_together(pair: MakePair, native) -> None:
    two = pair(
        lambda r: (
            "end"
            if "</think>" in r
            else f"{START}Wait, no.</think>end"
            if "\n\n" not in r
            else "on and on " * 30 + "</think>end"
        ),
        TARGET,
        thinking=native,
    )
    for budget in range(1, 60):
        events = two.events(replace(THINK, budget=budget, requested=budget, tolerance=None))
        assert end(events).reasoning_tokens == budget
        assert text(events, "answer") == "end"
        assert end(events).cut == "hard"
    assert use(events).target_tokens == 20
    assert end(events).record["budget"]["used"] == budget


def test_a_wrap_up_is_written_by_the_server_whoever_was_writing(pair: MakePair, tokenizer) -> None:
    two = pair(
        lambda r: "end" if "</think>" in r else f"{START}Wait, no.", "x" * 500, TakeoverLimits(takeover_tokens=200)
    )
    phrase = len(two.route.wrap_up.token_ids)
    events = two.events(replace(THINK, budget=100, requested=100, tolerance=0))
    assert end(events).cut == "wrap_up"
    assert end(events).reasoning_tokens == 100
    assert two.target.sampling[0].max_tokens == 100 - phrase - count(tokenizer, START)
    assert text(events, "answer") == "end"


@pytest.mark.parametrize("most", [1, 4, 5, 6, 12, 13, 24, 25, 26, 40])
def test_max_tokens_bounds_the_whole_reply(pair: MakePair, most: int) -> None:
    two = pair(lambda r: "on and on " * 30 if "Hold" in r else recites(SMALL)(r), TARGET)
    events = two.events(sampling=Sampling(max_tokens=most))
    assert (end(events).completion_tokens, end(events).reason) == (most, "length")


def test_min_tokens_is_held_over_hand_overs(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), "Hold on.")
    events = two.events(sampling=Sampling(min_tokens=60, max_tokens=80))
    assert end(events).completion_tokens >= 60
    assert two.target.sampling[0].min_tokens == 20


def test_the_target_s_share_can_be_bounded(pair: MakePair) -> None:
    small = "a.\n\n" + "Wait, no. So.\n\n" * 30 + "end</think>x"
    two = pair(lambda r: small if r == "<think>" else "so.\n\n" + small, TARGET, TakeoverLimits(target_tokens=33))
    events = two.events()
    assert use(events).target_tokens == 33
    assert use(events).takeovers == {"reflection": 2}


def test_a_takeover_without_room_is_no_takeover(pair: MakePair, tokenizer) -> None:
    two = pair(
        lambda r: "end" if "</think>" in r else recites(SMALL)(r),
        TARGET,
        TakeoverLimits(excess_after=1, excess_tokens=9),
    )
    events = two.events(replace(THINK, budget=count(tokenizer, START) + 21, tolerance=None))
    assert use(events).takeovers == {"reflection": 1}


@pytest.mark.parametrize("budget", range(1, 40))
def test_a_budget_that_ends_in_held_text_is_kept_to_the_token(pair: MakePair, budget: int) -> None:
    thought = "a.\n\nWait, no more of this.\n\nSo it is as long as it may.\n\n"
    lengths = TakeoverLimits(takeover_tokens=0, verification_tokens=0, excess_after=1, excess_tokens=4)
    two = pair(lambda r: "end" if "</think>" in r else thought + "on " * 30, "target " * 9, lengths)
    events = two.events(replace(THINK, budget=budget, requested=budget, tolerance=None))
    assert (end(events).reasoning_tokens, text(events, "answer")) == (budget, "end")


def test_stop_strings_end_the_answer_and_are_text_in_the_target_s_turn(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>one stop two" if "Hold" in r else recites(SMALL)(r), "Hold stop.")
    events = two.events(sampling=Sampling(stop=("stop",)))
    assert "Hold stop." in text(events, "reasoning")
    assert (text(events, "answer"), end(events).stopped_by) == ("one ", "stop")


def test_a_stop_id_is_text_in_the_target_s_turn_and_ends_the_answer(pair: MakePair, tokenizer) -> None:
    stop = tokenizer.encode("!")[0]
    two = pair(lambda r: "x</think>one! two" if "Hold" in r else recites(SMALL)(r), "Hold! on")
    events = two.events(sampling=Sampling(stop_token_ids=(stop,)))
    assert "Hold! on" in text(events, "reasoning")
    assert (text(events, "answer"), end(events).reason, end(events).stopped_by) == ("one", "stop", stop)


def test_each_segment_has_a_seed_of_its_own(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), TARGET)
    two.events(sampling=Sampling(seed=7))
    seeds = [sampling.seed for sampling in (*two.small.sampling, *two.target.sampling)]
    assert len(set(seeds)) == 3 and seeds[0] == 7


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_that_a_hand_over_forgets_are_refused(pair: MakePair, penalty: str) -> None:
    with pytest.raises(PolicyError) as refused:
        pair(SMALL, TARGET).events(sampling=Sampling(**{penalty: 0.5}))
    assert refused.value.field == penalty


# Wishes and leaving


@pytest.mark.parametrize("at", [1, 4, 6, 8, 20])
def test_a_client_that_wants_the_answer_now_gets_it_whoever_writes(pair: MakePair, at: int) -> None:
    two = pair(
        lambda r: "now" if "</think>" in r else "a.\n\n" + "so " * 300 if "\n\n" not in r else "on " * 200,
        "target " * 400,
        TakeoverLimits(takeover_tokens=500, opening_tokens=0),
        small_delays={"token_delay": 0.001},
        target_delays={"token_delay": 0.001},
        cues={"en": CueList()},
        sentence_tokens=100,
    )
    interrupt = Interrupt()

    async def run() -> list[Event]:
        events: list[Event] = []
        async for event in two.route.controller(two.route, Conversation(ASK, interrupt=interrupt), THINK, Sampling()):
            events.append(event)
            if len(events) == at:
                interrupt.ask("answer")
        return events

    events = asyncio.run(run())
    assert text(events, "answer") == "now"
    assert end(events).cut_by == "client"


@pytest.mark.parametrize("who", ["small", "target"])
def test_leaving_ends_the_request_that_runs(pair: MakePair, who: str) -> None:
    delays = {"token_delay": 0.001}
    two = pair(recites(SMALL), TARGET, TakeoverLimits(takeover_tokens=400), small_delays=delays, target_delays=delays)

    async def leave() -> tuple[int, int]:
        async with aclosing(two.route.controller(two.route, Conversation(ASK), THINK, Sampling())) as stream:
            async for event in stream:
                if isinstance(event, Chunk) and event.target == (who == "target"):
                    break
        return two.small_engine.running(), two.target_engine.running()

    assert asyncio.run(leave()) == (0, 0)


def test_only_one_of_the_two_engines_holds_a_reply_at_a_time(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), TARGET)

    async def held() -> set[tuple[int, int]]:
        found = set()
        async for _ in two.route.controller(two.route, Conversation(ASK), THINK, Sampling()):
            found.add((two.small_engine.running(), two.target_engine.running()))
        return found

    assert asyncio.run(held()) <= {(1, 0), (0, 1), (0, 0)}


# Vocabularies


def test_a_thousand_seeded_replies_are_seamless(pair: MakePair, in_bytes: HubTokenizer) -> None:
    """No character is lost or doubled: every request of either model reads the very beginning of the reply, and the
    reply is the concatenation of what stood. In one vocabulary and in two."""
    vocabularies = (None, in_bytes, other_tokenizer("words"))

    @cache
    def over(vocabulary: int, method: str, small_reasons: bool) -> Pair:
        return pair("", "", other=vocabularies[vocabulary], method=method, small_reasons=small_reasons)

    async def replies() -> int:
        handed = 0
        for seed in range(1000):
            two = over(seed % 3, "accept" if seed % 15 in (9, 13) else "takeover", seed % 7 != 6)
            lengths = TakeoverLimits(
                takeover_tokens=3 + seed % 23, verification_tokens=30, excess_after=2 + seed % 4, excess_tokens=9
            )
            two.small.begin(rambles(seed, WORDS, 0.8, 3))
            two.target.begin(rambles(seed + 10**6, WORDS, 0.2, 3))
            events = await two.collect(replace(THINK, lengths=lengths), Sampling(max_tokens=250))
            seamless(two, events, seed)
            handed += use(events).hand_overs
        return handed

    assert virtual_time.run(replies()) > 2000


def seamless(two: Pair, events: Sequence[Event], seed: int) -> None:
    thought, answer = text(events, "reasoning"), text(events, "answer")
    whole = thought + "</think>" + answer if answer else thought
    for model in (two.small, two.target):
        for asked in model.asked:
            said = plain(asked)
            score = said.find(two.settings.score_question)
            assert whole.startswith(said) or score >= 0, (seed, said[-80:], whole)
    assert text(events) == thought + answer
    assert use(events).seams == 0


def plain(asked: str) -> str:
    """What was said so far: without the tag, and the blank that some tokenizers put before it."""
    return re.sub(r"^ ?<think>", "", asked).rstrip("\ufffd")


def test_a_character_that_the_target_leaves_open_is_dropped_in_two_vocabularies(pair: MakePair, in_bytes) -> None:
    two = pair(
        lambda r: " on</think>x" if "\n\na" in r else recites(SMALL)(r),
        "a😀b",
        TakeoverLimits(takeover_tokens=3),
        other=in_bytes,
    )
    events = two.events()
    assert text(events, "reasoning") == START + "a on"


def test_a_character_that_the_target_leaves_open_is_completed_in_one(pair: MakePair, tokenizer) -> None:
    smile = tokenizer.encode("😀")
    assert len(smile) > 2
    two = pair(SMALL, TARGET, TakeoverLimits(takeover_tokens=2))
    two.target.goes_on = lambda reply: smile  # type: ignore[assignment,return-value]
    two.small.goes_on = lambda r: (
        [*smile[2:], *tokenizer.encode_control("</think>x")] if r.endswith("\ufffd") else recites(SMALL)(r)
    )  # type: ignore[assignment,return-value]
    events = two.events()
    assert text(events, "reasoning") == START + "😀"


def test_ids_behind_the_end_of_the_vocabulary_are_not_sent_on(pair: MakePair, tokenizer) -> None:
    two = pair(lambda r: "x</think>y" if "\n\nH" in r else recites(SMALL)(r), TARGET, TakeoverLimits(takeover_tokens=2))
    two.target.goes_on = lambda reply: [tokenizer.vocab_size, *tokenizer.encode("H")]  # type: ignore[assignment,return-value]
    events = two.events()
    assert (text(events, "reasoning"), use(events).target_tokens) == (START + "Hx", 2)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(logprobs=1),
        Sampling(logit_bias={1: 1.0}),
        Sampling(allowed_token_ids=(1,)),
        Sampling(stop_token_ids=(1,)),
    ],
)
def test_fields_that_name_tokens_need_one_vocabulary(pair: MakePair, in_bytes, sampling: Sampling) -> None:
    with pytest.raises(PolicyError, match="vocabularies"):
        pair(SMALL, TARGET, other=in_bytes).events(sampling=sampling)


def test_log_probabilities_come_from_whoever_wrote(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), "Hold.")
    events = two.events(sampling=Sampling(logprobs=0))
    for chunk in events:
        if isinstance(chunk, Chunk) and chunk.token_ids:
            assert chunk.logprobs is not None and len(chunk.logprobs) == len(chunk.token_ids)


def test_a_reply_that_outgrows_the_small_model_s_context_through_another_vocabulary_ends() -> None:
    long_words = "stst<" * 60  # `<` is held back: it may become a tag
    small, target = other_tokenizer("tagless"), other_tokenizer("merged")
    for length in (120, 121, 122):
        lengths = TakeoverLimits(takeover_tokens=length, verification_tokens=0)
        events = Pair(small, SMALL, long_words, lengths, other=target, context_length=200).events()
        assert (end(events).reason, use(events).target_tokens, use(events).failure) == ("length", length, None)
        assert text(events, "reasoning") == START + target.decode(target.encode(long_words)[:length])


def test_tags_that_one_vocabulary_spells_are_tokens_in_the_other(pair: MakePair) -> None:
    tagless = other_tokenizer("tagless")
    two = pair(lambda r: "yes" if "</think>" in r else recites(SMALL)(r), "Hold.</think>no", other=tagless)
    events = two.events()
    assert (text(events, "reasoning"), text(events, "answer")) == (START + "Hold.", "yes")
    assert two.small.prompts[-1].token_ids[-1] == two.small.tokenizer.control_id("</think>")


def test_text_that_only_began_as_a_tag_is_not_lost_at_a_hand_over(pair: MakePair) -> None:
    tagless = other_tokenizer("tagless")
    two = pair(lambda r: "> on</think>x" if "</thi" in r else recites(SMALL)(r), "</thi", other=tagless)
    events = two.events()
    assert text(events, "reasoning") == START + "</thi> on"


def test_text_that_a_vocabulary_cannot_take_over_is_counted(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), "Hold", other=other_tokenizer("lower"))
    events = two.events()
    assert use(events).seams == 1
    assert two.target.asked == ["<think>" + START.lower()]


# Accept or rewrite


def test_steps_that_score_low_are_rewritten_and_others_stand(pair: MakePair) -> None:
    def small(reply: str) -> str:
        return recites("good.\n\nbad.\n\nfine.</think>x")(reply) if "better" not in reply else "fine.</think>x"

    def target(reply: str) -> str:
        if not reply.endswith("quality score is: "):
            return "better.\n\nunseen"
        return "3" if "bad." in reply else "8"

    two = pair(small, target, method="accept")
    events = two.events()
    assert text(events, "reasoning") == "good.\n\nbetter.\n\nfine."
    assert (use(events).takeovers, use(events).scores) == ({"rewrite": 1}, 3)
    assert text(events, target=True) == "better.\n\n"
    assert two.target.sampling[0].max_tokens == 1 and len(two.target.sampling[0].allowed_token_ids) == 10
    assert len(two.small.asked) == 2
    assert two.target.asked[0].startswith("<think>good.\n\n")


def test_without_room_for_the_target_a_poor_step_stands(pair: MakePair) -> None:
    two = pair("bad.\n\nbad.</think>x", "0", TakeoverLimits(target_tokens=0), method="accept")
    assert (text(two.events()), len(two.small.asked)) == ("bad.\n\nbad.x", 1)


def test_the_takeovers_score_nothing() -> None:
    assert guide_for(SpeculativeConfig(target="target"), TakeoverLimits(), Cues()).scored(0.0) == "keep"


def test_blank_steps_are_not_scored(pair: MakePair) -> None:
    two = pair("one.\n\n\n\n\n\ntwo.\n\n</think>x", "9", method="accept")
    events = two.events()
    assert (text(events, "reasoning"), use(events).scores) == ("one.\n\n\n\n\n\ntwo.\n\n", 2)


def test_the_small_model_writes_on_while_a_step_is_scored(pair: MakePair) -> None:
    """Forty tokens at 5 ms, four scores at 50 ms: the scores cost nothing but the last one's wait."""
    two = pair(
        "a b c d e f g h i.\n\n" * 4 + "</think>x",
        "9",
        method="accept",
        small_delays={"token_delay": 0.005},
        target_delays={"first_token_delay": 0.05},
    )

    last, _ = arrivals(two)[-1]
    alone = 0.005 * count(two.small.tokenizer, "a b c d e f g h i.\n\n" * 4)
    assert alone < last < alone + 2 * 0.05


def test_scores_are_asked_for_in_the_target_s_own_vocabulary(pair: MakePair, in_bytes) -> None:
    two = pair("good é.\n\nfine.</think>x", "9", method="accept", other=in_bytes)
    events = two.events()
    assert text(events, "reasoning") == "good é.\n\nfine."
    assert two.target.asked[0] == "<think>good é.\n\n" + two.settings.score_question
    assert two.target.asked[1] == "<think>good é.\n\nfine.</think>" + two.settings.score_question


def test_a_target_whose_digits_are_no_tokens_cannot_score(tokenizer, in_bytes) -> None:
    digits = other_tokenizer("words")  # writes a blank before each of them
    with pytest.raises(ValueError, match="digit"):
        Pair(tokenizer, SMALL, TARGET, other=digits, method="accept")


# Failures


def failing(error: Exception, after: str = "") -> Callable[[Prompt, Sampling], Line]:
    return lambda prompt, sampling: ScriptedReply(after, error=error)


@pytest.mark.parametrize(
    ("error", "name", "degraded"),
    [
        (EngineDead("gone"), "dead", True),
        (EngineError("odd"), "error", True),
        (EngineBusy("full"), "busy", False),
    ],
)
@pytest.mark.parametrize("after", ["", "Hold it"])
@pytest.mark.parametrize("method", ["takeover", "accept"])
def test_without_its_target_a_reply_goes_on_alone(pair: MakePair, error, name, degraded, after, method) -> None:
    two = pair(lambda r: " small</think>x" if "Hold" in r else recites(SMALL)(r), TARGET, method=method)
    two.target_engine._script = failing(error, "" if method == "accept" else after)
    events = two.events()
    assert text(events, "answer") in ("x", "small answers")
    assert use(events).failure == end(events).record["target_failure"] == name
    assert two.route.degraded is degraded
    if after and method == "takeover":
        assert text(events, "reasoning") == START + "Hold it small"
    else:
        assert text(events, "reasoning") == SMALL.partition("</think>")[0]


@pytest.mark.parametrize("method", ["takeover", "accept"])
def test_a_route_may_rather_fail_with_its_target(pair: MakePair, method: str) -> None:
    two = pair(SMALL, TARGET, on_failure="fail", method=method)
    two.target_engine._script = failing(EngineDead("gone"))
    with pytest.raises(EngineDead):
        two.events()
    assert two.small_engine.running() == 0


@pytest.mark.parametrize("method", ["takeover", "accept"])
def test_a_target_that_is_too_slow_is_done_without(pair: MakePair, method: str) -> None:
    two = pair(SMALL, TARGET, patience=0.02, method=method, target_delays={"first_token_delay": 30.0})
    events = two.events()
    assert use(events).failure == "slow"
    assert text(events) == SMALL.replace("</think>", "")
    assert two.target_engine.running() == 0


def test_after_a_failure_the_target_is_left_alone_for_a_while_and_then_tried_again(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), TARGET, rest_seconds=0.1)
    well = two.target_engine._script
    two.target_engine._script = failing(EngineDead("gone"))
    assert use(two.events()).failure == "dead"
    two.target_engine._script = well
    asked = len(two.target.asked)
    assert use(two.events()).failure == "down"
    assert (len(two.target.asked), two.route.degraded) == (asked, True)

    async def later() -> list[Event]:
        await asyncio.sleep(0.11)
        return await two.collect()

    assert use(asyncio.run(later())).failure is None
    assert two.route.degraded is False


def test_a_request_that_is_cancelled_in_time_asks_neither_model(pair: MakePair) -> None:
    two, interrupt = pair(SMALL, TARGET), Interrupt()
    held = [event for event in asyncio.run(two.collect(interrupt=interrupt)) if isinstance(event, Chunk)]
    interrupt.ask("cancel")
    events = asyncio.run(two.collect(Policy("auto", "route"), interrupt=interrupt))
    assert held
    assert end(events).cancelled
    assert not [event for event in events if isinstance(event, Chunk)]


@pytest.mark.parametrize("slow", ["small", "target"])
def test_a_cancellation_waits_for_neither_model(pair: MakePair, slow: str) -> None:
    two = pair(SMALL, TARGET)
    interrupt = Interrupt()
    engine = two.target_engine if slow == "target" else two.route.engine
    engine.first_token_delay = 5  # type: ignore[attr-defined]

    async def cancelled() -> tuple[list[Event], float]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        loop.call_later(0.2, interrupt.ask, "cancel")
        return await two.collect(interrupt=interrupt), loop.time() - begun

    events, seconds = asyncio.run(cancelled())
    assert seconds < 1
    assert end(events).cancelled
    assert engine.running() == 0


def test_what_a_cancellation_leaves_held_is_counted_as_discarded(pair: MakePair) -> None:
    two, interrupt = pair(START + "so " * 400, TARGET, small_delays={"token_delay": 0.02}), Interrupt()

    async def cancelled() -> list[Event]:
        asyncio.get_running_loop().call_later(0.25, interrupt.ask, "cancel")
        return await two.collect(interrupt=interrupt)

    events = asyncio.run(cancelled())
    assert (end(events).cancelled, text(events, "reasoning")) == (True, START)
    assert end(events).discarded_tokens > 0
    assert use(events).held_seconds > 0


def test_the_target_s_full_context_is_no_outage(pair: MakePair) -> None:
    two = pair(SMALL, TARGET, target_context=20)
    events = two.events()
    assert (use(events).failure, two.route.degraded) == ("full", False)


def test_a_request_that_the_target_refuses_is_the_client_s_mistake(pair: MakePair) -> None:
    two = pair(SMALL, TARGET)
    two.target_engine._script = failing(InvalidRequest("no", "logit_bias"))
    with pytest.raises(InvalidRequest):
        two.events()


def test_the_small_model_s_failure_fails_the_reply(pair: MakePair) -> None:
    two = pair(SMALL, TARGET)
    two.small_engine._script = failing(EngineDead("gone"), "so far")
    with pytest.raises(EngineDead):
        two.events()


def test_fifty_streams_finish_on_the_small_model_when_the_target_dies_among_them(pair: MakePair) -> None:
    delays = {"token_delay": 0.002}
    small = "a.\n\n" + "Wait, no. So it is.\n\n" * 8 + "end</think>x"
    two = pair(
        lambda r: small if r == "<think>" else "so.\n\n" + small[:400],
        TARGET,
        small_delays=delays,
        target_delays=delays,
    )

    async def storm() -> list[list[Event]]:
        async def kill() -> None:
            await asyncio.sleep(0.15)
            two.target_engine._script = failing(EngineDead("killed"))

        runs = [two.collect(sampling=Sampling(max_tokens=200)) for _ in range(50)]
        *replies, _ = await asyncio.gather(*runs, kill())
        return replies

    replies = virtual_time.run(storm())
    assert len(replies) == 50
    failures = [use(events).failure for events in replies]
    assert set(failures) <= {"dead", "down", None} and failures.count("dead") + failures.count("down") >= 40
    assert all(use(events).target_tokens for events in replies)
    assert (two.small_engine.running(), two.target_engine.running()) == (0, 0)


# Requests


def test_a_request_may_change_lengths_within_the_route_s_caps() -> None:
    defaults = Defaults(
        "think",
        speculation=SpeculativeConfig(
            target="target", caps=TakeoverCaps(takeover_tokens=64, excess_after=10, target_tokens=500)
        ),
    )
    asked = {"takeover_tokens": 100, "verification_tokens": 7, "excess_after": 3}
    policy = fold({"reasond": {"speculative": asked}}, FAMILIES["lhrm"], defaults)
    assert policy.lengths == TakeoverLimits(64, 7, 125, 10, 0, 500)
    assert fold({}, FAMILIES["lhrm"], defaults).lengths is None
    assert fold({"reasond": {"speculative": {"target": False}}}, FAMILIES["lhrm"], defaults).target is False


@pytest.mark.parametrize("asked", [{"takeover_tokens": 5}, {"target": True}])
def test_a_route_without_a_target_refuses_what_is_asked_of_one(asked: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="no target"):
        fold({"reasond": {"speculative": asked}}, FAMILIES["lhrm"], Defaults("think"))


@pytest.mark.parametrize("asked", [{"takeover_tokens": -1}, {"takeover_tokens": True}, {"target": 1}, {"other": 1}])
def test_wrong_values_are_refused(asked: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        fold(
            {"reasond": {"speculative": asked}},
            FAMILIES["lhrm"],
            Defaults("think", speculation=SpeculativeConfig(target="target")),
        )


def test_the_lengths_of_a_request_are_its_own(pair: MakePair) -> None:
    two = pair(lambda r: "x</think>y" if "Hold" in r else recites(SMALL)(r), TARGET)
    events = two.events(replace(THINK, lengths=TakeoverLimits(takeover_tokens=4)))
    assert use(events).target_tokens == 4
