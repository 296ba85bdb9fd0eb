"""Deciders that begin the reply: what is shown is never taken back, and every token is told of."""

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import CONTROLLERS
from controllers.deciders import Patient, load_decider, read_decider
from controllers.deciders.answers import COMPARISONS, Answer
from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from controllers.deciders.calibration import Calibration
from controllers.deciders.draft import SIGNALS
from controllers.generation.answer_format import AnswerFormat
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt
from controllers.generation.route import Route, build_route, with_target
from controllers.policy.fold import Defaults, Policy
from controllers.policy.speculation import SpeculativeConfig
from models.engines.base import Delta, EngineBusy, EngineDead, Grammar, Prompt, PromptTooLong, Sampling
from models.engines.scripted import Line, ScriptedEngine, ScriptedReply
from models.formats import FAMILIES
from models.formats.chunks import CallPart, Chunk
from models.text.tokenizer import HubTokenizer
from tests import virtual_time
from tests.controllers.test_driver import ASK, CALL, Recut, essence
from tests.formats import HERMES

TOKENIZER = HubTokenizer("demo/tokenizer")
AUTO = Policy("auto", "route")
PLAIN = Sampling()
Wish = Literal["cancel", "answer"]
THOUGHT = "well, 17*20 and 17*3</think>it is 391."
DIRECT = "so it is 391, of course!"
DRAFT = {"decider": "draft", "raw_threshold": 0.5}
AGREE = {"decider": "agree", "compare": "number"}


class Script:
    """Writes its direct replies in turn with that log-probability a token, thinks where it may, and calls an answer
    wrong with probability `wrong`."""

    def __init__(self, *direct: str, logprob: float = -0.1, wrong: float = 0.5) -> None:
        self.direct, self.logprob, self.wrong = direct, logprob, wrong
        self.drafts: list[Sampling] = []
        self.asked: list[str] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        text = TOKENIZER.decode(prompt.token_ids, skip_special_tokens=False)
        if sampling.logprob_token_ids:
            self.asked.append(text)
            first, second = sampling.logprob_token_ids
            return ScriptedReply([first], {first: math.log(self.wrong), second: math.log(1 - self.wrong)})
        reply = text.rpartition("assistant\n")[2]
        if not reply.startswith(("<think>\n\n</think>\n\n", "Well, ")):
            return THOUGHT.split("</think>")[1] if "</think>" in reply else THOUGHT
        said = self.direct[len(self.drafts) % len(self.direct)]
        self.drafts.append(sampling)
        return ScriptedReply(said, dict.fromkeys(TOKENIZER.encode_control(said), self.logprob))


class Counting:
    """An engine that counts what it gives, and tells `at` of each delta before it is read."""

    def __init__(self, engine: Any, at: Callable[[int], None] = lambda count: None) -> None:
        self._engine, self._at = engine, at
        self.tokens = self.deltas = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        async for delta in self._engine.generate(prompt, sampling):
            asyncio.get_running_loop().call_soon(self._at, self.deltas)
            self.deltas += 1
            await asyncio.sleep(0)
            self.tokens += len(delta.token_ids)
            yield delta


def route_of(script: Script, settings: dict[str, Any], engine: Callable[[Any], Any] = lambda plain: plain) -> Route:
    scripted = engine(ScriptedEngine(TOKENIZER, script))
    defaults = Defaults("auto", decider=settings["decider"])
    route = build_route("r", CONTROLLERS["mode"], FAMILIES["qwen3"], scripted, defaults)
    return replace(route, decider=load_decider(read_decider(settings), TOKENIZER))


async def collect(route: Route, policy: Policy = AUTO, sampling: Sampling = PLAIN, **request: Any) -> list[Event]:
    conversation = Conversation(request.pop("messages", ASK), **request)
    return [event async for event in route.controller(route, conversation, policy, sampling)]


def run(*args: Any, **request: Any) -> list[Event]:
    return asyncio.run(collect(*args, **request))


def record(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[-1], Finished)
    return events[-1].record


def text(events: list[Event], kind: str = "answer") -> str:
    """What the model wrote of a kind."""
    chunks = (event for event in events if isinstance(event, Chunk) and not event.forced)
    return "".join(chunk.text for chunk in chunks if chunk.kind == kind)


def same_but_for_the_choice(events: list[Event]) -> Any:
    """A reply's essence without who chose its mode, and what the choice cost."""
    spans, tokens, logprobs, _, end, target = essence(events)
    bare = Decision(end.decision.mode, "client", end.decision.prompt)
    return spans, tokens, logprobs, replace(end, decision=bare), target


# Draft


def test_a_confident_draft_is_the_reply_and_costs_nothing() -> None:
    script = Script(DIRECT)
    events = run(route_of(script, DRAFT))
    told = record(events)
    assert (told["mode"], told["chosen_by"], told["threshold"]) == ("no_think", "draft", 0.5)
    assert told["p_think"] == pytest.approx(1 - math.exp(-0.1), abs=1e-3)
    assert "decision_tokens" not in told
    assert told["held_seconds"] > 0
    assert (text(events), len(script.drafts)) == (DIRECT, 1)


def test_an_unsure_draft_is_thrown_away_and_told() -> None:
    count = len(TOKENIZER.encode(DIRECT)) + 1  # the end of the turn
    events = run(route_of(Script(DIRECT, logprob=-3.0), DRAFT))
    told = record(events)
    assert (told["mode"], told["chosen_by"], told["decision_tokens"]) == ("think", "draft", count)
    assert told["discarded_tokens"] == count
    assert (text(events, "reasoning"), text(events)) == tuple(THOUGHT.split("</think>"))
    assert isinstance(events[0], Decision)


def test_a_long_draft_thinks_unless_it_was_decided_before() -> None:
    script = Script("word " * 60)
    long = record(run(route_of(script, {**DRAFT, "draft_tokens": 20})))
    assert (long["mode"], long["decision_tokens"]) == ("think", 21)
    assert "p_think" not in long
    early = route_of(script, {**DRAFT, "draft_tokens": 20, "until": 8})
    assert text(run(early)) == "word " * 60
    unsure = record(run(route_of(Script("word " * 60, logprob=-3.0), {**DRAFT, "until": 8})))
    assert (unsure["mode"], unsure["decision_tokens"]) == ("think", 8)


@pytest.mark.parametrize(("wrong", "mode"), [(0.8, "think"), (0.2, "no_think")])
@pytest.mark.parametrize("begun", [False, True])
def test_the_model_may_be_asked_whether_its_draft_is_right(wrong: float, mode: str, begun: bool) -> None:
    script = Script(DIRECT, wrong=wrong)
    messages = [*ASK, {"role": "assistant", "content": "Well, "}] if begun else ASK
    events = run(route_of(script, {**DRAFT, "signal": "p_true"}), messages=messages, continue_final=begun)
    told = record(events)
    assert (told["mode"], told["p_think"]) == (mode, wrong)
    assert told["decision_tokens"] == 1 + (mode == "think") * (len(TOKENIZER.encode(DIRECT)) + 1)
    assert ("Well, " if begun else "") + DIRECT in script.asked[0]
    assert "Is the answer above right" in script.asked[0]


@pytest.mark.parametrize(
    ("direct", "shape", "signal"),
    [
        (CALL, AnswerFormat(None, HERMES), "mean"),
        (CALL, AnswerFormat(None, HERMES), "p_true"),
        (DIRECT, AnswerFormat(Grammar("regex", ".*"), required=True), "mean"),
    ],
)
@pytest.mark.parametrize(("wrong", "mode"), [(0.8, "think"), (0.2, "no_think")])
def test_where_no_token_can_be_scored_the_model_is_asked(
    direct: str, shape: AnswerFormat, signal: str, wrong: float, mode: str
) -> None:
    script = Script(direct, wrong=wrong)
    events = run(route_of(script, {**DRAFT, "signal": signal}), shape=shape)
    told = record(events)
    assert (told["mode"], told["chosen_by"], told["p_think"]) == (mode, "ask", wrong)
    assert "Would working this out" in script.asked[0]


def test_signals_look_at_all_at_the_end_and_at_the_least_certain_stretch() -> None:
    logprobs = [-1.0] * 16 + [-5.0] * 16 + [0.0] * 32
    assert {name: signal(logprobs) for name, signal in SIGNALS.items()} == {"mean": -1.5, "tail": 0.0, "low": -5.0}
    assert SIGNALS["low"]([-1.0, -3.0]) == -2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"raw_threshold": 0.5, "calibration": "README.md"},
        {"raw_threshold": 0.5, "until": 600},
        {"raw_threshold": 0.5, "until": 5, "signal": "p_true"},
    ],
)
def test_a_draft_is_configured_wholly_or_not_at_all(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"raw_threshold|until"):
        read_decider({"decider": "draft", **wrong})


# Both, as replies

SHAPES = (
    (DIRECT, None),
    (f"see. {CALL}", AnswerFormat(None, HERMES)),
    (f"{CALL}{CALL} and on", AnswerFormat(None, HERMES, single=True)),
    (DIRECT, AnswerFormat(Grammar("regex", ".*"), required=True)),
)
SAMPLINGS = (
    Sampling(),
    Sampling(whole=True),
    Sampling(stop=("is 39", "of"), logprobs=2),
    Sampling(max_tokens=12),
    Sampling(seed=5, min_tokens=3),
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(SAMPLINGS),
    st.sampled_from((DRAFT, {**DRAFT, "until": 5}, {**DRAFT, "signal": "low"}, {**DRAFT, "signal": "p_true"}, AGREE)),
    st.sampled_from((-0.05, -4.0)),
    st.integers(1, 8),
    st.integers(0, 2**16),
)
def test_the_reply_is_the_one_of_its_mode_however_the_stream_is_cut(
    direct: tuple[str, AnswerFormat | None],
    sampling: Sampling,
    decider: dict[str, Any],
    logprob: float,
    cut: int,
    seed: int,
) -> None:
    """Accepted or not, what the client gets is what the mode itself would have given; and every token is told."""
    said, shape = direct
    engines: list[Counting] = []

    def recut(plain: Any) -> Any:
        engines.append(Counting(Recut(plain, random.Random(seed), cut)))
        return engines[0]

    route = route_of(Script(said, logprob=logprob, wrong=1 - math.exp(logprob)), decider, recut)
    events = run(route, AUTO, sampling, shape=shape)
    end = events[-1]
    assert isinstance(end, Finished)
    plain = run(route, Policy(end.decision.mode, "client"), sampling, shape=shape)
    assert same_but_for_the_choice(events) == same_but_for_the_choice(plain)
    assert isinstance(events[0], Decision)
    assert sum(isinstance(event, Decision) for event in events) == 1
    assert events[0].mode == end.decision.mode
    before = engines[0].tokens
    again = run(route, AUTO, sampling, shape=shape)[-1]
    assert isinstance(again, Finished)
    forced = sum(len(event.token_ids) for event in events if isinstance(event, Chunk) and event.forced)
    assert engines[0].tokens - before == again.completion_tokens - forced + again.discarded_tokens


@pytest.mark.parametrize("decider", [DRAFT, {**DRAFT, "until": 4}, AGREE, {**DRAFT, "signal": "p_true"}])
@pytest.mark.parametrize("logprob", [-0.05, -4.0])
@pytest.mark.parametrize("wish", ["cancel", "answer"])
def test_a_client_may_end_it_at_any_point(
    decider: dict[str, Any], logprob: float, wish: Literal["cancel", "answer"]
) -> None:
    """Before each delta of the whole: what was drafted is then the answer, and nothing runs on."""
    count = 0
    while True:
        interrupt = Interrupt()

        def ask(at: int, count: int = count, interrupt: Interrupt = interrupt) -> None:
            if at == count:
                interrupt.ask(wish)

        script = Script(DIRECT, "it is 7", logprob=logprob, wrong=0.9 if logprob < -1 else 0.1)
        route = route_of(script, decider, partial(Counting, at=ask))
        events = run(route, interrupt=interrupt)
        end = events[-1]
        assert isinstance(end, Finished)
        assert route.engine.running() == 0
        assert len([event for event in events if isinstance(event, Decision)]) == 1
        if end.decision.mode == "no_think":
            assert DIRECT.startswith(text(events))
            assert wish == "cancel" or text(events) == DIRECT
        else:
            assert THOUGHT.startswith(text(events, "reasoning"))
        if route.engine.deltas <= count:  # type: ignore[attr-defined]
            break
        assert end.cancelled or wish == "answer" or text(events) == DIRECT  # a draft that is whole is the reply
        count += 1
    assert count > 10


@pytest.mark.parametrize("decider", [DRAFT, AGREE])
def test_who_goes_away_leaves_nothing_running(decider: dict[str, Any]) -> None:
    async def leave(steps: int) -> bool:
        route = route_of(Script(DIRECT, logprob=-0.05), decider)
        task = asyncio.ensure_future(collect(route))
        for _ in range(steps):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert route.engine.running() == 0
        return done

    steps = 1
    while not asyncio.run(leave(steps)):
        steps += 1
    assert steps > 10


@pytest.mark.parametrize("decider", [DRAFT, AGREE])
@pytest.mark.parametrize(("error", "failure"), [(EngineBusy("full"), "busy"), (EngineDead("gone"), "error")])
def test_a_draft_that_fails_thinks_and_its_tokens_are_told(
    decider: dict[str, Any], error: Exception, failure: str
) -> None:
    class Failing(Script):
        def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
            line = super().__call__(prompt, sampling)
            return replace(line, error=error) if isinstance(line, ScriptedReply) else line

    told = record(run(route_of(Failing(DIRECT), decider)))
    assert (told["mode"], told["decider_failure"]) == ("think", failure)
    assert told["decision_tokens"] >= len(TOKENIZER.encode(DIRECT))


def test_patience_is_for_silence_alone() -> None:
    def paced(first: float, token: float) -> Callable[[Any], Any]:
        def slowed(plain: ScriptedEngine) -> ScriptedEngine:
            plain.first_token_delay, plain.token_delay = first, token
            return plain

        return slowed

    def told(first: float, token: float) -> dict[str, Any]:
        route = route_of(Script(DIRECT), {**DRAFT, "patience": 0.5}, paced(first, token))
        return record(virtual_time.run(collect(route)))

    assert told(0.4, 0.4)["mode"] == "no_think"
    assert told(0.6, 0.0)["decider_failure"] == "slow"


def test_a_decider_that_is_late_may_still_say_that_it_works() -> None:
    class Late:
        async def decide(self, question: Question) -> ModeVerdict | None:
            try:
                await asyncio.sleep(9.0)
            finally:
                question.heard()

    plain = route_of(Script(DIRECT), {"decider": "never"})
    route = replace(plain, decider=Patient(Late(), DeciderConfig(decider="ask", patience=0.5)))
    assert record(virtual_time.run(collect(route)))["decider_failure"] == "slow"


def test_a_prompt_that_is_too_long_stays_the_client_s_error() -> None:
    with pytest.raises(PromptTooLong):
        run(route_of(Script(DIRECT), DRAFT), messages=[{"role": "user", "content": "word " * 5000}])


def test_a_direct_reply_never_wakes_the_target() -> None:
    def asleep(prompt: Prompt, sampling: Sampling) -> Line:
        raise AssertionError("asked")

    route = with_target(
        route_of(Script(DIRECT), DRAFT),
        ScriptedEngine(TOKENIZER, asleep, name="large"),
        SpeculativeConfig(target="large"),
        CircuitBreaker(),
    )
    events = run(route)
    assert (text(events), record(events)["chosen_by"]) == (DIRECT, "draft")


# Agree


@pytest.mark.parametrize(
    ("second", "mode"), [("391.0 it is", "no_think"), ("7", "think"), ("", "think"), ("long " * 200 + "391", "think")]
)
def test_drafts_that_agree_are_the_reply(second: str, mode: str) -> None:
    script = Script(DIRECT, second)
    events = run(route_of(script, {**AGREE, "draft_tokens": 100}), AUTO, Sampling(seed=1, temperature=0.0))
    told = record(events)
    assert (told["mode"], told["chosen_by"], told["p_think"]) == (mode, "agree", float(mode == "think"))
    assert [sampling.temperature for sampling in script.drafts] == [0.0, 0.7]
    assert script.drafts[0].seed == 1 != script.drafts[1].seed
    thrown_away = (len(TOKENIZER.encode(DIRECT)) + 1) * (mode == "think")
    assert told["decision_tokens"] == thrown_away + min(101, len(TOKENIZER.encode(second)) + 1)


def test_of_three_drafts_the_share_that_differs_is_held_against_the_threshold() -> None:
    route = route_of(Script(DIRECT, "391", "7"), {**AGREE, "drafts": 3})
    assert record(run(route, replace(AUTO, think_threshold=0.6)))["mode"] == "no_think"
    route = route_of(Script(DIRECT, "391", "7"), {**AGREE, "drafts": 3})
    assert record(run(route))["p_think"] == 0.5


@pytest.mark.parametrize(
    ("compared", "one", "other", "same"),
    [
        ("text", "  It is  Paris. ", "it is paris", True),
        ("text", "Paris", "Rome", False),
        ("text", " . ", "", None),
        ("number", "in all 1,200.50", "= 1200.5", True),
        ("number", "12", "21", False),
        ("number", "none", "12", None),
        ("choice", "A is wrong, so (C)", "C", True),
        ("choice", "As such", "", None),
        ("boxed", "so \\boxed{ X }", "\\boxed{x}", True),
        ("boxed", "x", "x", None),
    ],
)
def test_answers_are_compared_by_what_counts_of_them(compared: Any, one: str, other: str, same: bool | None) -> None:
    first, second = COMPARISONS[compared](one), COMPARISONS[compared](other)
    assert (None if first is None else first == second) == same


def test_calls_agree_by_name_and_arguments() -> None:
    def called(name: str, *arguments: str, text: str = "") -> object | None:
        answer = Answer()
        answer.add(Chunk("answer", text, ()))
        for number, piece in enumerate(arguments):
            answer.add(Chunk("tool", piece, (), call=CallPart(0, "id", None if number else name)))
        return answer.gist("text")

    assert called("f", '{"a": 1, "b": 2}') == called("f", '{"b": ', '2, "a": 1}', text="and text")
    assert called("f", "{}") != called("g", "{}")
    assert called("f", "{") == (("f", "{"),)
    assert called("f", text="text") == "text"
    route = route_of(Script(CALL, CALL.replace('"x"', '"y"')), AGREE)
    assert record(run(route, shape=AnswerFormat(None, HERMES)))["mode"] == "think"
    route = route_of(Script(CALL, CALL.replace(": ", ":")), AGREE)
    assert record(run(route, shape=AnswerFormat(None, HERMES)))["mode"] == "no_think"


# Chain and calibration


def chain(*links: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"decider": "chain", "links": [*links], **more}


@pytest.mark.parametrize(
    ("p_yes", "by"), [(0.9, "ask"), (0.1, "ask"), (0.5, "draft")], ids=["sure yes", "sure no", "unsure"]
)
def test_who_is_unsure_asks_the_next(p_yes: float, by: str) -> None:
    told = record(run(route_of(Script(DIRECT, wrong=p_yes), chain({"decider": "ask"}, DRAFT))))
    assert told["chosen_by"] == by
    assert told["decision_tokens"] == 1


def test_a_draft_that_is_unsure_is_thrown_away_before_the_next_is_asked() -> None:
    script = Script(DIRECT, logprob=-0.5)
    told = record(run(route_of(script, chain(DRAFT, {"decider": "never"}))))
    assert (told["chosen_by"], told["decision_tokens"]) == ("never", len(TOKENIZER.encode(DIRECT)) + 1)
    assert len(script.drafts) == 2


def test_a_chain_has_links_that_are_deciders_and_bounds_in_order() -> None:
    for wrong in (
        chain(DRAFT),
        chain(DRAFT, {"decider": "guess"}),
        chain(DRAFT, AGREE, unsure=[0.8, 0.2]),
        {"decider": "chain"},
    ):
        with pytest.raises(ValueError):
            read_decider(wrong)


def test_a_calibration_says_what_scores_are_worth(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    own = {"points": [[0.2, 0.1], [0.6, 0.5]], "threshold": 0.3, "scores": [1, 2]}
    file.write_text(json.dumps({"deciders": {"draft": own}}), "utf-8")
    settings = {"decider": "draft", "calibration": str(file)}
    told = record(run(route_of(Script(DIRECT, logprob=math.log(0.5)), settings)))
    assert (told["mode"], told["threshold"]) == ("think", 0.3)
    assert told["p_think"] == pytest.approx(told["score"] - 0.1)
    assert [Calibration.read(str(file), "draft").p_think(score) for score in (0.0, 0.2, 0.7)] == [0.1, 0.1, 0.5]
    with pytest.raises(ValueError, match="no calibration of decider ask"):
        load_decider(read_decider({"decider": "ask", "calibration": str(file)}), TOKENIZER)


@pytest.mark.parametrize("written", ["", "[]", "{}", '{"deciders": {"draft": {"points": [[0.2]]}}}'])
def test_a_file_that_is_no_calibration_is_told(tmp_path: Path, written: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(written, "utf-8")
    with pytest.raises(ValueError, match=r"calibration\.json"):
        Calibration.read(str(file), "draft")
