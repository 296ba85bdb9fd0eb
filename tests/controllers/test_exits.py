"""Early exits: a settled thought ends without a phrase; what is not settled, or not to be touched, goes on."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from controllers import CONTROLLERS
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Event, Finished
from controllers.generation.route import Route, build_route, with_target
from controllers.policy.controls import PolicyError
from controllers.policy.exits import MarginConfig, TrialConfig
from controllers.policy.fold import Defaults, Policy, fold
from controllers.policy.speculation import SpeculativeConfig
from models.engines.base import Delta, EngineBusy, Prompt, Sampling
from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.text.tokenizer import HubTokenizer
from tests.controllers.stories import other_tokenizer, said

THOUGHT = "One and two. It is three.\n\nWait, is it? It is three again. And so it is.\n\nWait, once more. All is well. "
ANSWER = "three"
INDUCER = "So:"
MARGIN = MarginConfig(rule="margin", after=0)
TRIAL = TrialConfig(rule="trial", after=0, inducer=INDUCER, end="!", skip=0, apart=1)


class Thinker:
    """A model that thinks its thought to the end, answers behind it, and says what it is told to on trial. The closing
    tag's log-probability is `near` at every token; those of trials are `sure`."""

    def __init__(self, tokenizer: HubTokenizer, **told: Any) -> None:
        self.tokenizer = tokenizer
        self.thought: str = told.get("thought", THOUGHT)
        self.tried: Callable[[str], str | Exception] = told.get("tried", lambda thought: "three!")
        self.near: float = told.get("near", -1000.0)
        self.sure: float = told.get("sure", -0.01)
        self.trials: list[str] = []
        self.asked: list[tuple[Prompt, Sampling]] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> ScriptedReply:
        self.asked.append((prompt, sampling))
        reply = said(self.tokenizer, prompt.token_ids)
        if reply.endswith(INDUCER):
            self.trials.append(reply)
            text = self.tried(reply)
            if isinstance(text, Exception):
                return ScriptedReply("", error=text)
            sampled = dict.fromkeys(self.tokenizer.encode_control(text), self.sure)
            return ScriptedReply(text, logprobs=sampled, cached_tokens=7)
        if "</think>" in reply:
            return ScriptedReply(ANSWER)
        rest = f"{self.thought}</think>{ANSWER}"[len(reply.removeprefix("<think>")) :]
        closer = self.tokenizer.encode_control("</think>")[0]
        return ScriptedReply(rest, logprobs={closer: self.near})


def route_of(model: Thinker, exits: Any, *, family: str = "lhrm", **engine: Any) -> Route:
    scripted = ScriptedEngine(model.tokenizer, model, context_length=2048, **engine)
    return build_route("r", CONTROLLERS["mode"], FAMILIES[family], scripted, Defaults("think", early_exit=exits))


def run(
    route: Route, sampling: Sampling | None = None, policy: Policy | None = None, **conversation: Any
) -> tuple[str, Finished, list[Event]]:
    async def collect() -> list[Event]:
        request = Conversation([{"role": "user", "content": "hi"}], **conversation)
        asked = policy or Policy("think", "client")
        return [event async for event in route.controller(route, request, asked, sampling or Sampling())]

    events = asyncio.run(collect())
    assert isinstance(events[-1], Finished)
    text = "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == "reasoning")
    return text, events[-1], events


def answered(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == "answer")


def test_a_thought_ends_at_the_first_sentence_behind_which_the_tag_is_near(tokenizer: HubTokenizer) -> None:
    model = Thinker(tokenizer, near=-0.3)
    thought, end, events = run(route_of(model, MARGIN))
    assert (thought, answered(events)) == ("One and two.", ANSWER)
    assert (end.cut, end.cut_by, end.segments, end.discarded_tokens) == ("line_end", "settled", 2, 1)
    assert end.record["exit"] == {
        **dict.fromkeys(("probe_tokens", "prompt_tokens", "cached_tokens", "failed"), 0),
        "rule": "margin",
        "looks": 1,
        "best": pytest.approx(0.2),
    }


@pytest.mark.parametrize(
    ("exits", "kept"),
    [
        (MarginConfig(rule="margin", after=8), "One and two. It is three."),
        (MarginConfig(rule="margin", after=0, tau=0.1), THOUGHT),
    ],
)
def test_how_near_and_from_where_are_settings(tokenizer: HubTokenizer, exits: Any, kept: str) -> None:
    thought, *_ = run(route_of(Thinker(tokenizer, near=-0.3), exits))
    assert thought.strip() == kept.strip()


def test_a_tag_that_is_no_candidate_is_far(tokenizer: HubTokenizer) -> None:
    _, end, _ = run(route_of(Thinker(tokenizer), MARGIN))
    assert end.cut is None
    assert end.record["exit"]["best"] is None
    assert end.record["exit"]["looks"] == 9


@pytest.mark.parametrize("asked", [None, 0, 2])
def test_the_client_has_the_log_probabilities_that_it_asked_for(tokenizer: HubTokenizer, asked: int | None) -> None:
    model = Thinker(tokenizer, near=-0.3)
    _, _, events = run(route_of(model, MARGIN), Sampling(logprobs=asked))
    given = [chunk.logprobs for chunk in events if isinstance(chunk, Chunk) and not chunk.forced and chunk.token_ids]
    assert all((each is None) == (asked is None) for each in given if each is None or asked is None)
    assert {len(at.top) for each in given for at in each or ()} == (set() if asked is None else {asked})
    assert [sampling.logprobs for _, sampling in model.asked] == [20, asked]


def test_a_tag_of_several_tokens_is_known_by_its_first() -> None:
    model = Thinker(other_tokenizer("tagless"), near=-0.3)
    thought, end, events = run(route_of(model, MARGIN))
    assert (thought, answered(events), end.cut_by) == ("One and two.", ANSWER, "settled")


def test_a_sure_trial_ends_the_thought_with_the_sentence_at_hand(tokenizer: HubTokenizer) -> None:
    model = Thinker(tokenizer)
    thought, end, events = run(route_of(model, TRIAL), cache_salt="s")
    (trial,) = model.trials
    assert trial == f"<think>One and two. It is three.\n\n{INDUCER}"
    assert THOUGHT.startswith(thought)
    assert len(thought) < len(THOUGHT.strip())
    assert (answered(events), end.cut, end.cut_by) == (ANSWER, "line_end", "settled")
    use = end.early_exit
    assert use is not None
    assert (use.rule, use.looks, use.failed, use.cached_tokens) == ("trial", 1, 0, 7)
    assert use.best == pytest.approx(0.99, abs=0.001)
    assert use.probe_tokens == len(tokenizer.encode("three!"))
    prompt, sampling = next(each for each in model.asked if each[1].temperature == 0.0)
    assert (prompt.cache_salt, sampling.max_tokens, use.prompt_tokens) == ("s", 20, len(prompt.token_ids))


def test_trials_change_nothing_while_none_is_sure(tokenizer: HubTokenizer) -> None:
    with_trials, without = Thinker(tokenizer, sure=-3.0), Thinker(tokenizer)
    tried, end, _ = run(route_of(with_trials, TRIAL))
    plain, other, _ = run(route_of(without, None))
    assert (tried, len(with_trials.trials), without.trials) == (plain, 2, [])
    assert (end.completion_tokens, end.segments, end.cut) == (other.completion_tokens, 1, None)
    assert "exit" not in other.record


@pytest.mark.parametrize(
    ("settings", "trials"),
    [
        ({"at": "step"}, 2),
        ({"most": 1}, 1),
        ({"apart": 1000}, 1),
        ({"after": 1000}, 0),
        ({"delimiters": ("?",)}, 0),  # "It is three again" turns nowhere
        ({"delimiters": ("?",), "at": "step"}, 1),
    ],
)
def test_where_and_how_often_it_is_tried(tokenizer: HubTokenizer, settings: Mapping[str, Any], trials: int) -> None:
    model = Thinker(tokenizer, sure=-3.0)
    run(route_of(model, TRIAL.model_copy(update=settings)))
    assert len(model.trials) == trials


def test_a_second_trial_must_agree_where_one_is_to_confirm(tokenizer: HubTokenizer) -> None:
    twice = TRIAL.model_copy(update={"confirm": 2})
    long = THOUGHT + "All is well and very well. " * 3
    agree = Thinker(tokenizer, thought=long)
    differ = Thinker(tokenizer, thought=long, tried=lambda thought: f"{len(thought)}!")
    assert run(route_of(agree, twice))[1].cut_by == "settled"
    assert run(route_of(differ, twice))[1].cut_by is None
    assert (len(agree.trials), len(differ.trials)) == (2, 2)


def test_a_trial_that_comes_to_no_end_or_says_nothing_is_not_sure(tokenizer: HubTokenizer) -> None:
    for tried in ("three " * 30, "!"):
        assert run(route_of(Thinker(tokenizer, tried=lambda thought, tried=tried: tried), TRIAL))[1].cut is None


def test_the_closing_tag_must_follow_where_models_are_too_sure(tokenizer: HubTokenizer) -> None:
    closed = TRIAL.model_copy(update={"closed": True})
    followed = Thinker(tokenizer, tried=lambda thought: "three!</think>")
    goes_on = Thinker(tokenizer, tried=lambda thought: "three! " * 20)
    assert run(route_of(followed, closed))[1].cut_by == "settled"
    assert run(route_of(goes_on, closed))[1].cut is None


def test_a_trial_may_be_the_end_of_the_reply(tokenizer: HubTokenizer) -> None:
    whole = TRIAL.model_copy(update={"end": ""})
    assert run(route_of(Thinker(tokenizer, tried=lambda thought: "three"), whole))[1].cut_by == "settled"


def test_a_sentence_without_end_is_left_after_a_while(tokenizer: HubTokenizer) -> None:
    model = Thinker(tokenizer, thought="It is three.\n\nWait, is it? " + "so and so and " * 40)
    thought, end, events = run(route_of(model, TRIAL.model_copy(update={"patience": 8})))
    assert (end.cut, end.cut_by, answered(events)) == ("hard", "settled", ANSWER)
    assert len(thought) < len(model.thought) / 2


def test_an_engine_that_cannot_is_told_of_and_the_thought_goes_on(tokenizer: HubTokenizer) -> None:
    _, end, _ = run(route_of(Thinker(tokenizer, tried=lambda thought: EngineBusy("full")), TRIAL))
    assert end.cut is None
    assert end.record["exit"]["failed"] == 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_trial_ends_with_the_reply_that_it_is_for(tokenizer: HubTokenizer, whole: bool) -> None:
    """A trial that hangs holds nothing up, and is aborted in its engine, however the reply ends."""
    model = Thinker(tokenizer)
    route = route_of(model, TRIAL)
    engine = route.engine
    assert isinstance(engine, ScriptedEngine)
    hanging: list[str] = []

    class Hanging:
        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
            if said(tokenizer, prompt.token_ids).endswith(INDUCER):
                hanging.append("begun")
                try:
                    await asyncio.Event().wait()
                finally:
                    hanging.append("closed")
            async for delta in engine.generate(prompt, sampling):
                yield delta

    object.__setattr__(route, "engine", Hanging())

    async def collect() -> int:
        request = Conversation([{"role": "user", "content": "hi"}])
        events = route.controller(route, request, Policy("think", "client"), Sampling())
        seen = 0
        async with aclosing(events):
            async for _ in events:
                seen += 1
                if hanging and not whole:
                    break
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(collect()) > 1
    assert hanging[:2] == ["begun", "closed"]


def test_the_request_has_the_last_word(tokenizer: HubTokenizer) -> None:
    family, on_request = FAMILIES["lhrm"], MARGIN.model_copy(update={"default": False})

    def cut(exits: Any, asked: Mapping[str, Any]) -> str | None:
        defaults = Defaults("think", early_exit=exits)
        policy = fold({"reasond": {"mode": "think", **asked}}, family, defaults)
        return run(route_of(Thinker(tokenizer, near=-0.3), exits), policy=policy)[1].cut_by

    assert [cut(MARGIN, {}), cut(MARGIN, {"exit": True}), cut(MARGIN, {"exit": False})] == ["settled", "settled", None]
    assert [cut(on_request, {}), cut(on_request, {"exit": True})] == [None, "settled"]
    assert cut(None, {"exit": False}) is None
    with pytest.raises(PolicyError, match=r"reasond\.exit: this route"):
        cut(None, {"exit": True})
    with pytest.raises(PolicyError, match=r"reasond\.exit: expected true or false"):
        cut(MARGIN, {"exit": "yes"})


def test_a_penalty_that_a_cut_would_forget_switches_it_off(tokenizer: HubTokenizer) -> None:
    route, sampling = route_of(Thinker(tokenizer, near=-0.3), MARGIN), Sampling(presence_penalty=0.5)
    assert run(route, sampling)[1].cut is None
    with pytest.raises(PolicyError, match="presence_penalty"):
        run(route, sampling, Policy("think", "client", early_exit=True))


def test_a_budget_goes_first_and_an_answer_is_let_be(tokenizer: HubTokenizer) -> None:
    policy = Policy("think", "client", budget=3, requested=3, tolerance=None)
    _, end, _ = run(route_of(Thinker(tokenizer, near=-0.3), MARGIN), policy=policy)
    assert end.cut_by == "budget"
    model = Thinker(tokenizer, near=-0.3)
    _, direct, _ = run(route_of(model, MARGIN), Sampling(whole=True), Policy("no_think", "client"))
    assert direct.cut is None
    assert [(sampling.whole, sampling.logprobs) for _, sampling in model.asked] == [(True, None)]


@pytest.mark.parametrize("exits", [MARGIN, TRIAL])
@pytest.mark.parametrize("same", [True, False])
def test_the_target_s_turn_is_let_be(tokenizer: HubTokenizer, exits: Any, same: bool) -> None:
    """The target opens the thought; what it writes is never ended, and the small model's is."""
    opening = "The target writes this. And this. Yes.\n\nWait, "
    model = Thinker(tokenizer, near=-0.3, thought=opening + THOUGHT)
    other = tokenizer if same else other_tokenizer("bytes")
    target = ScriptedEngine(other, lambda prompt, sampling: opening, name="t", context_length=2048)
    opening_tokens = len(other.encode(opening))
    settings = SpeculativeConfig(target="t", opening_tokens=opening_tokens, takeover_tokens=0)
    route = with_target(route_of(model, exits), target, settings, CircuitBreaker())
    thought, end, _ = run(route)
    assert end.cut_by == "settled"
    assert thought.startswith(opening)
    assert end.target is not None
    assert end.target.target_tokens > 0
