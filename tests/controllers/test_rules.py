"""Replies held to their limits, over scripted engines."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest

from controllers import CONTROLLERS
from controllers.concurrency import gather
from controllers.generation.events import Conversation, Decision, Event, Finished, Interrupt, Progress
from controllers.generation.route import Route, build_route
from controllers.policy.controls import PolicyError
from controllers.policy.fold import BudgetSettings, Defaults, Policy
from models.engines.base import Delta, Prompt, PromptTooLong, Sampling
from models.engines.scripted import Line, Script, ScriptedEngine
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.formats.reasoning import ReasoningFormat
from models.text.tokenizer import HubTokenizer

TAGS = ("<think>", "</think>")
ASK = [{"role": "user", "content": "hi"}]
THINK = Policy("think", "client")
LINE = "1+1=2+2=4+4=8\n"  # 14 tokens, as digits, operators and newlines are tokens of their own


class ThinkingScript:
    """A script that goes on where the prompt ends, and what it was asked."""

    def __init__(self, thinking: str, answer: str = "so 8", direct: str = "8</no_think>") -> None:
        self.thinking, self.answer, self.direct = thinking, answer, direct
        self.seen: list[tuple[list[int], Sampling]] = []

    def over(self, tokenizer: HubTokenizer) -> Script:
        def script(prompt: Prompt, sampling: Sampling) -> Line:
            self.seen.append((list(prompt.token_ids), sampling))
            said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
            if "</think>" in said:
                return self.answer
            if "<no_think>" in said:
                return self.direct
            opening = "" if "<think>" in said else "<think>"
            return f"{opening}{self.thinking}</think>{self.answer}"

        return script


MakeThinker = Callable[..., tuple[Route, ThinkingScript]]


@pytest.fixture
def thinker(tokenizer: HubTokenizer) -> MakeThinker:
    """A route over a script that thinks, and the script."""

    def make(
        thinking: str,
        *,
        family: str | ReasoningFormat = "lhrm",
        native: bool = False,
        reserve: int = 0,
        **engine: float,
    ) -> tuple[Route, ThinkingScript]:
        asked = ThinkingScript(thinking)
        kind = FAMILIES[family] if isinstance(family, str) else family
        over = ScriptedEngine(tokenizer, asked.over(tokenizer), thinking=TAGS if native else None, **engine)  # type: ignore[arg-type]
        return build_route(
            "r", CONTROLLERS["mode"], kind, over, Defaults("auto", budgets=BudgetSettings(reserve=reserve))
        ), asked

    return make


def reply(
    route: Route, policy: Policy = THINK, sampling: Sampling | None = None, interrupt: Interrupt | None = None
) -> list[Event]:
    async def collect() -> list[Event]:
        request = Conversation(ASK, interrupt=interrupt)
        return [event async for event in route.controller(route, request, policy, sampling or Sampling())]

    return asyncio.run(collect())


def text(events: list[Event], kind: str) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == kind)


def end(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def ids(events: list[Event], *, forced: bool | None = None) -> list[int]:
    chunks = [event for event in events if isinstance(event, Chunk) and forced in (None, event.forced)]
    return [token_id for chunk in chunks for token_id in chunk.token_ids]


def budget(tokens: int, tolerance: int | None = None, **more: int) -> Policy:
    return replace(THINK, budget=tokens, requested=tokens, prefill=tokens, tolerance=tolerance, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("native", [True, False])
def test_a_hard_cut_ends_thinking_at_the_token_and_the_answer_follows(thinker: MakeThinker, native: bool) -> None:
    route, asked = thinker("1+1=2+2=4", native=native)
    events = reply(route, budget(4))
    assert (text(events, "reasoning"), text(events, "answer")) == ("1+1=", "so 8")
    finished = end(events)
    assert (finished.reasoning_tokens, finished.cut, finished.cut_by) == (4, "hard", "budget")
    assert finished.budget is not None
    assert (finished.budget.requested, finished.budget.enforced, finished.budget.used) == (4, 4, 4)
    assert finished.completion_tokens == len(ids(events))
    assert ids(events, forced=True) == list(route.closing.token_ids)
    assert len(asked.seen) == finished.segments == (1 if native else 2)
    assert asked.seen[0][1].thinking_budget == (4 if native else None)


@pytest.mark.parametrize("native", [True, False])
def test_thinking_that_ends_by_itself_is_not_touched(thinker: MakeThinker, native: bool) -> None:
    route, _ = thinker("1+1=2", native=native)
    events = reply(route, budget(6))
    assert (text(events, "reasoning"), text(events, "answer")) == ("1+1=2", "so 8")
    assert (end(events).cut, end(events).segments, ids(events, forced=True)) == (None, 1, [])
    assert end(events).record["budget"]["used"] == 5


@pytest.mark.parametrize("native", [True, False])
def test_the_model_that_opens_its_own_thinking_has_the_same_budget(thinker: MakeThinker, native: bool) -> None:
    route, _ = thinker("1+1=2+2=4", native=native)
    events = reply(route, replace(budget(4), mode="auto"))
    assert (text(events, "reasoning"), text(events, "answer")) == ("1+1=", "so 8")
    assert (end(events).decision.mode, end(events).cut) == ("think", "hard")


def test_what_the_template_or_the_prefix_wrote_does_not_count_against_the_budget(thinker: MakeThinker) -> None:
    route, asked = thinker("1+1=2+2=4", family="qwen3", native=True)
    events = reply(route, budget(4))
    assert text(events, "reasoning") == "1+1="
    assert asked.seen[0][1].thinking_budget == 5  # the engine counts the newline of the prefix, the client does not


def test_a_second_opening_tag_does_not_restart_the_budget(thinker: MakeThinker) -> None:
    route, _ = thinker("1+<think>1+1+1+1+1+1", native=True)
    events = reply(route, budget(6))
    assert (end(events).reasoning_tokens, end(events).cut, end(events).segments) == (6, "hard", 2)
    assert (text(events, "answer"), end(events).discarded_tokens) == ("so 8", 1)


def test_thinking_waits_for_a_line_end_near_its_budget(thinker: MakeThinker) -> None:
    route, _ = thinker(LINE * 10)
    phrase = len(route.wrap_up.token_ids)
    events = reply(route, budget(phrase + 60, tolerance=32))
    # the phrase begins at 60 at the latest; a line ends every 14 tokens, and counts in the second half of the 60
    assert text(events, "reasoning") == LINE * 3 + route.family.wrap_up
    assert (end(events).cut, end(events).reasoning_tokens) == ("line_end", 42 + phrase)
    assert text(events, "answer") == "so 8"
    assert ids(events, forced=True) == [*route.wrap_up.token_ids, *route.closing.token_ids]


def test_thinking_waits_for_the_end_of_a_sentence(thinker: MakeThinker) -> None:
    route, _ = thinker("1+1+1+1+1+1+1+1+1+1+1+3.1+1. So 1+1+1+1+1+1+1+1+1+1+1+1")
    phrase = len(route.wrap_up.token_ids)
    events = reply(route, budget(phrase + 40, tolerance=20))
    assert text(events, "reasoning") == "1+1+1+1+1+1+1+1+1+1+1+3.1+1." + route.family.wrap_up
    assert (end(events).cut, end(events).discarded_tokens) == ("line_end", 1)


def test_thinking_without_a_line_end_is_wrapped_up_in_mid_line(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 200)
    phrase = len(route.wrap_up.token_ids)
    events = reply(route, budget(phrase + 60, tolerance=32))
    assert text(events, "reasoning") == "1+" * 30 + route.family.wrap_up
    assert (end(events).cut, end(events).reasoning_tokens) == ("wrap_up", 60 + phrase)


def test_a_budget_too_small_for_the_phrase_ends_at_a_line_or_hard(thinker: MakeThinker) -> None:
    route, _ = thinker(LINE * 5)
    assert end(reply(route, budget(20, tolerance=32))).cut == "line_end"
    assert text(reply(route, budget(20, tolerance=32)), "reasoning") == LINE
    events = reply(route, budget(10, tolerance=32))
    assert (end(events).cut, end(events).reasoning_tokens) == ("hard", 10)


def test_a_budget_of_nothing_closes_thinking_at_once(thinker: MakeThinker) -> None:
    route, _ = thinker("1+1")
    events = reply(route, budget(0))
    assert (text(events, "reasoning"), text(events, "answer")) == ("", "so 8")
    assert (end(events).segments, end(events).cut, end(events).completion_tokens) == (1, "hard", len(ids(events)))


def test_no_thinking_for_a_budget_of_nothing_is_in_the_record(thinker: MakeThinker) -> None:
    events = reply(thinker("1+1")[0], replace(budget(0), mode="no_think"))
    assert end(events).record["budget"]["enforced"] == 0
    assert (text(events, "answer"), end(events).cut) == ("8", None)


def test_closing_thinking_at_once_may_be_all_that_there_is_room_for(thinker: MakeThinker) -> None:
    route, asked = thinker("1+1")
    events = reply(route, budget(0), Sampling(max_tokens=1))
    assert (end(events).reason, end(events).completion_tokens, asked.seen) == ("length", 1, [])


def test_an_answers_reserve_is_kept(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 100)
    policy = replace(THINK, reserve=8, tolerance=None)
    events = reply(route, policy, Sampling(max_tokens=30))
    # 30 tokens in all: 8 for the answer, 1 for the tag, so 21 of thinking
    assert (end(events).reasoning_tokens, end(events).cut, end(events).cut_by) == (21, "hard", "reserve")
    assert text(events, "answer") == "so 8"
    assert end(events).record["budget"] == {
        "scope": "thinking",
        "requested": None,
        "declared": None,
        "enforced": 21,
        "used": 21,
    }


def test_with_no_room_to_think_beside_the_reserve_the_model_answers_directly(thinker: MakeThinker) -> None:
    route, _ = thinker("1+1")
    events = reply(route, replace(THINK, reserve=8), Sampling(max_tokens=10))
    assert (end(events).decision.chosen_by, end(events).decision.mode) == ("reserve", "no_think")
    assert text(events, "answer") == "8"
    assert end(reply(route, replace(THINK, reserve=8), Sampling(max_tokens=11))).decision.mode == "think"


def test_the_context_bounds_a_reply_as_max_tokens_does(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 100, context_length=40)
    events = reply(route, replace(THINK, reserve=8, tolerance=None))
    assert text(events, "answer") == "so 8"
    assert end(events).completion_tokens <= 40 - end(events).prompt_tokens


def test_max_tokens_bounds_the_whole_and_its_segments_get_what_is_left(thinker: MakeThinker) -> None:
    route, asked = thinker("1+" * 100)
    asked.answer = "8" * 50
    events = reply(route, budget(10), Sampling(max_tokens=20, min_tokens=15))
    assert (end(events).completion_tokens, end(events).reason) == (20, "length")
    assert (asked.seen[1][1].max_tokens, asked.seen[1][1].min_tokens) == (9, 4)  # 10 of thinking and a tag are said
    assert asked.seen[1][0] == [*asked.seen[0][0], *ids(events)[:11]]


def test_each_segment_has_a_seed_of_its_own_that_follows_from_the_requests(thinker: MakeThinker) -> None:
    route, asked = thinker("1+" * 100)
    reply(route, budget(10), Sampling(seed=7))
    reply(route, budget(10), Sampling(seed=7))
    seeds = [sampling.seed for _, sampling in asked.seen]
    assert seeds[0] == 7 != seeds[1]
    assert seeds[:2] == seeds[2:]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_that_a_cut_would_forget_are_refused_unless_the_engine_cuts(
    thinker: MakeThinker, penalty: str
) -> None:
    sampling = Sampling(**{penalty: 0.5})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=penalty) as refused:
        reply(thinker("1+1=2+2=4")[0], budget(4, tolerance=32), sampling)
    assert refused.value.field == penalty
    events = reply(thinker("1+1=2+2=4", native=True)[0], budget(4, tolerance=32), sampling)
    assert (end(events).cut, end(events).segments) == ("hard", 1)
    assert text(reply(thinker("1+1")[0], THINK, sampling), "reasoning") == "1+1"


def test_stop_strings_and_held_text_live_through_a_cut(thinker: MakeThinker) -> None:
    route, asked = thinker("a.b.c.d.e.f.")
    asked.answer = "yes. no."
    events = reply(route, budget(4), Sampling(stop=(".",)))
    assert (text(events, "reasoning"), text(events, "answer")) == ("a.b.", "yes")
    assert (end(events).reason, end(events).stopped_by) == ("stop", ".")


def test_tokens_that_the_server_wrote_have_no_log_probabilities(thinker: MakeThinker) -> None:
    for native in (True, False):
        events = reply(thinker("1+1=2+2=4", native=native)[0], budget(4), Sampling(logprobs=1))
        chunks = [event for event in events if isinstance(event, Chunk)]
        assert all((chunk.logprobs is None) == chunk.forced for chunk in chunks if chunk.token_ids)
        assert any(chunk.forced for chunk in chunks)


def test_where_tags_are_text_the_watcher_cuts_by_itself(thinker: MakeThinker) -> None:
    spelled = replace(FAMILIES["deepseek_r1"], thinking=("<t>", "</t>"), closing="</t>", behind={"think": "<t>"})
    route, _ = thinker("1+1=2+2=4", family=spelled, native=True)
    assert not route.native_budget
    events = reply(route, budget(4))
    assert (text(events, "reasoning"), end(events).cut, end(events).reasoning_tokens) == ("<think>1+1", "hard", 4)
    assert text(events, "answer").startswith("1+1=")  # whatever this script says next, it is the answer


class InSteps:
    """An engine that gives several tokens at once."""

    def __init__(self, engine: ScriptedEngine, size: int) -> None:
        self._engine, self._size = engine, size

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        held: list[Delta] = []
        async with aclosing(self._engine.generate(prompt, sampling)) as stream:
            async for delta in stream:
                held.append(delta)
                if len(held) == self._size or delta.finish:
                    ids = tuple(token_id for one in held for token_id in one.token_ids)
                    yield replace(delta, token_ids=ids, pieces=tuple(piece for one in held for piece in one.pieces))
                    held = []


@pytest.mark.parametrize("size", [2, 3, 7, 50])
@pytest.mark.parametrize("native", [True, False])
def test_the_cut_does_not_depend_on_how_many_tokens_come_at_once(thinker: MakeThinker, size: int, native: bool) -> None:
    route, _ = thinker(LINE * 10, native=native)
    stepped = replace(route, engine=InSteps(route.engine, size))  # type: ignore[arg-type]
    for policy in (budget(30), budget(70, tolerance=16), replace(budget(33), mode="auto")):
        one, many = reply(route, policy), reply(stepped, policy)
        assert ids(one) == ids(many)
        assert (end(one).cut, end(one).budget) == (end(many).cut, end(many).budget)


BUDGETER = "<budget>12</budget><solution>"


class Declaring:
    """A model of the budget family: fills its budget field unless that is filled, and a solution of given length."""

    def __init__(self, declares: str, length: int) -> None:
        self.declares, self.length = declares, length
        self.seen: list[tuple[str, Sampling]] = []

    def over(self, tokenizer: HubTokenizer) -> Script:
        def script(prompt: Prompt, sampling: Sampling) -> Line:
            said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
            self.seen.append((said, sampling))
            field = "" if "<solution>" in said else f"<budget>{self.declares}</budget><solution>"
            left = self.length - len(tokenizer.encode(said.rpartition("<solution>")[2]))
            return field + "8" * left + "</solution>"

        return script


MakeBudgeter = Callable[..., tuple[Route, Declaring]]


@pytest.fixture
def budgeter(tokenizer: HubTokenizer) -> MakeBudgeter:
    def make(
        declares: str, length: int, family: str | ReasoningFormat = "selfbudgeter", **engine: float
    ) -> tuple[Route, Declaring]:
        asked = Declaring(declares, length)
        over = ScriptedEngine(tokenizer, asked.over(tokenizer), **engine)  # type: ignore[arg-type]
        kind = FAMILIES[family] if isinstance(family, str) else family
        return build_route("b", CONTROLLERS["mode"], kind, over, Defaults("think")), asked

    return make


def test_a_declared_budget_stands_in_the_first_decision_and_holds_nobody(budgeter: MakeBudgeter) -> None:
    events = reply(budgeter("12", 20)[0], replace(THINK, chosen_by="route"))
    assert isinstance(events[0], Decision)
    assert events[0].record()["budget"]["declared"] == 12
    assert text(events, "budget") == "12"
    assert text(events, "answer") == "8" * 20
    assert end(events).record["budget"] == {
        "scope": "reply",
        "requested": None,
        "declared": 12,
        "enforced": None,
        "used": 20,
    }
    assert (end(events).cut, end(events).reason, end(events).stopped_by) == (None, "stop", None)


def test_a_declared_budget_can_be_enforced(budgeter: MakeBudgeter) -> None:
    route, _ = budgeter("12", 20)
    held = reply(route, replace(THINK, hold_declared=True, tolerance=None))
    assert text(held, "answer") == "8" * 12
    assert (end(held).cut, end(held).reason) == ("hard", "length")
    both = reply(route, replace(budget(9), hold_declared=True))
    assert text(both, "answer") == "8" * 9  # a client's budget is written into the field: nothing is declared
    assert end(both).budget is not None
    assert end(both).budget.declared is None  # type: ignore[union-attr]


def test_a_field_without_a_number_declares_nothing(budgeter: MakeBudgeter) -> None:
    events = reply(budgeter("much", 5)[0])
    assert (text(events, "budget"), text(events, "answer")) == ("much", "8" * 5)
    assert end(events).budget is None


def test_a_clients_budget_is_written_into_the_models_own_field(budgeter: MakeBudgeter) -> None:
    route, asked = budgeter("12", 5)
    events = reply(route, budget(9))
    assert asked.seen[0][0] == "<budget>9</budget><solution>"
    assert (text(events, "answer"), text(events, "budget")) == ("8" * 5, "")
    assert (end(events).cut, end(events).record["budget"]["used"]) == (None, 5)


def test_a_reply_is_held_to_its_budget_and_closed(budgeter: MakeBudgeter) -> None:
    route, asked = budgeter("12", 50)
    events = reply(route, budget(9))
    assert text(events, "answer") == "8" * 9
    assert (end(events).reason, end(events).cut, end(events).answer_tokens) == ("length", "hard", 9)
    assert asked.seen[0][1].max_tokens == 9
    assert ids(events, forced=True) == list(route.closing.token_ids)


def test_a_long_reply_is_told_to_come_to_its_answer_inside_its_budget(budgeter: MakeBudgeter) -> None:
    route, asked = budgeter("12", 200)
    phrase = len(route.wrap_up.token_ids)
    events = reply(route, budget(60, tolerance=8, reserve=10))
    assert text(events, "answer") == "8" * (50 - phrase) + route.family.wrap_up + "8" * 10
    assert (end(events).answer_tokens, end(events).cut, end(events).segments) == (60, "hard", 2)
    asked.length = 55
    wrapped = reply(route, budget(60, tolerance=8, reserve=10))
    assert (end(wrapped).cut, end(wrapped).reason, end(wrapped).answer_tokens) == ("wrap_up", "stop", 55)


def test_text_held_for_a_stop_string_comes_before_what_the_server_writes(budgeter: MakeBudgeter) -> None:
    route, _ = budgeter("12", 200)
    events = reply(route, budget(60, tolerance=8, reserve=10), Sampling(stop=("8The", "8" * 100)))
    assert text(events, "answer") == "8" * (50 - len(route.wrap_up.token_ids)) + route.family.wrap_up + "8" * 10
    assert end(interrupted(route, "cancel", after=10, sampling=Sampling(stop=("8" * 20,)))).answer_tokens > 0


def test_text_behind_a_solution_whose_tag_is_no_token_is_never_asked_for(budgeter: MakeBudgeter) -> None:
    spelled = replace(FAMILIES["selfbudgeter"], solution=("<solution>", "</s>"), closing="</s>")
    route, asked = budgeter("12", 5, family=spelled)
    asked.over = lambda tokenizer: lambda prompt, sampling: "888</s>999"  # type: ignore[assignment, method-assign]
    engine = ScriptedEngine(route.engine.tokenizer, ["888</s>9999999"])  # type: ignore[arg-type]
    events = reply(replace(route, engine=engine), budget(9))
    assert (text(events, "answer"), end(events).reason) == ("888", "stop")


def test_a_whole_reply_with_a_small_limit_still_comes_to_its_answer(budgeter: MakeBudgeter) -> None:
    route, asked = budgeter("250", 200)
    phrase, kept = len(route.wrap_up.token_ids), replace(THINK, reserve=4)
    for most in range(1, 40):
        events = reply(route, kept, Sampling(max_tokens=most))
        assert text(events, "answer"), most
        assert end(events).completion_tokens <= most
        if most >= phrase + 4 + len(route.closing.token_ids):
            assert text(events, "answer").endswith(route.family.wrap_up + "8888"), most
    assert asked.seen[0][0] == "<budget>1</budget><solution>"  # with so little room the field is filled in with it
    assert asked.seen[-1][0].startswith("<budget>250</budget><solution>")  # the last limit leaves room to declare
    filled = end(reply(route, kept, Sampling(max_tokens=12)))
    assert (filled.record["budget"]["declared"], filled.record["budget"]["enforced"]) == (None, 12)
    assert filled.cut_by == "reserve"
    capped = reply(route, replace(kept, budget=9, cap=9), Sampling(max_tokens=14))
    assert asked.seen[-1][0].startswith("<budget>9</budget><solution>")
    assert end(capped).answer_tokens <= 9


def test_a_field_that_the_model_does_not_end_is_ended_where_an_answer_is_reserved(
    budgeter: MakeBudgeter, tokenizer: HubTokenizer
) -> None:
    for begins in ("<budget>" + "1" * 50, "</budget>" * 50):
        route, _ = budgeter("12", 30)
        endless = replace(route, engine=ScriptedEngine(tokenizer, endless_field(tokenizer, begins)))
        events = reply(endless, replace(THINK, reserve=4), Sampling(max_tokens=60))
        assert text(events, "answer").startswith("8888")
        assert ids(events)[route.longest_field :][: len(route.to_solution.token_ids)] == [*route.to_solution.token_ids]
        assert end(events).completion_tokens == len(ids(events)) <= 60
        assert end(events).record["budget"]["declared"] is None
    left_alone = reply(endless, THINK, Sampling(max_tokens=40))
    assert text(left_alone, "answer") == ""


def endless_field(tokenizer: HubTokenizer, begins: str) -> Script:
    """A model that stays in its budget field until it is brought to its solution."""
    solve = Declaring("12", 30).over(tokenizer)

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        return solve(prompt, sampling) if "<solution>" in said else begins

    return script


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_whole_reply_with_a_reserve_refuses_penalties(budgeter: MakeBudgeter, penalty: str) -> None:
    route, _ = budgeter("12", 20)
    sampling = Sampling(**{penalty: 0.5})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=penalty):
        reply(route, replace(THINK, reserve=4), sampling)
    assert text(reply(route, budget(9), sampling), "answer") == "8" * 9


def test_a_prompt_that_fills_the_context_is_refused_whatever_stands_behind_it(budgeter: MakeBudgeter) -> None:
    for policy in (budget(9, tolerance=8, reserve=4), replace(THINK, reserve=4), budget(9)):
        with pytest.raises(PromptTooLong):
            reply(budgeter("12", 20, context_length=10)[0], policy)


def test_a_whole_reply_is_not_to_be_longer_than_its_own_budget(budgeter: MakeBudgeter) -> None:
    route, asked = budgeter("12", 50)
    asking = replace(budget(9), asked_in="thinking_budget")
    with pytest.raises(PolicyError, match="min_tokens and thinking_budget contradict each other"):
        reply(route, asking, Sampling(min_tokens=10))
    assert end(reply(route, asking, Sampling(min_tokens=9))).answer_tokens == 9
    held = replace(THINK, hold_declared=True, reserve=2, tolerance=0)
    events = reply(route, held, Sampling(min_tokens=40))  # what it declares is not the client's doing
    assert text(events, "answer") == "8" * 5 + route.family.wrap_up + "8" * 2
    assert asked.seen[-1][1].min_tokens == asked.seen[-1][1].max_tokens == 2


def test_a_token_that_is_half_tag_and_half_text_counts_once(tokenizer: HubTokenizer) -> None:
    spelled = replace(FAMILIES["lhrm"], thinking=("1 ", "2 "), closing="2 ", direct=None, behind={"think": ""})
    one, half = tokenizer.encode("1"), tokenizer.encode("1 a")[1]
    assert tokenizer.token_text(half) == " a"
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: [*one, half, *one * 30])
    route = build_route("r", CONTROLLERS["mode"], spelled, engine, Defaults("think"))
    for tokens in (1, 2, 5):
        events = reply(route, budget(tokens))
        assert end(events).record["budget"]["used"] <= tokens
        assert end(events).cut == "hard"


class Slow:
    """An engine whose first token takes its time, and what was open there."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.opened = self.closed = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        self.opened += 1
        try:
            await asyncio.sleep(5)
            async for delta in self.engine.generate(prompt, sampling):
                yield delta
        finally:
            self.closed += 1


@pytest.mark.parametrize(
    "policy", [THINK, replace(THINK, mode="auto"), replace(THINK, mode="auto", think_threshold=0.5)]
)
@pytest.mark.parametrize("choices", [1, 3])
def test_a_cancellation_does_not_wait_for_the_engine(thinker: MakeThinker, policy: Policy, choices: int) -> None:
    route, _ = thinker("1+1")
    slow = Slow(route.engine)  # type: ignore[arg-type]
    interrupt = Interrupt()

    async def cancelled() -> tuple[list[Event], float]:
        waiting = replace(route, engine=slow)  # type: ignore[arg-type]
        request = Conversation(ASK, interrupt=interrupt)
        runs = [route.controller(waiting, request, policy, Sampling()) for _ in range(choices)]
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, interrupt.ask, "cancel")
        begun = loop.time()

        async def read(run: AsyncGenerator[Event, None]) -> list[Event]:
            return [event async for event in run]

        events = await gather([read(run) for run in runs])
        return [event for each in events for event in each], loop.time() - begun

    events, seconds = asyncio.run(cancelled())
    ends = [event for event in events if isinstance(event, Finished)]
    assert [(one.reason, one.cancelled, one.completion_tokens) for one in ends] == [("stop", True, 0)] * choices
    assert seconds < 0.25
    assert slow.opened == slow.closed == choices
    assert not interrupt.waiting


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_request_cancelled_before_it_begins_asks_no_engine(thinker: MakeThinker, threshold: float | None) -> None:
    route, asked = thinker("1+1")
    interrupt = Interrupt()
    interrupt.ask("cancel")
    events = reply(route, Policy("auto", "route", threshold), interrupt=interrupt)
    assert (end(events).cancelled, ids(events), asked.seen) == (True, [], [])


def test_who_leaves_is_not_taken_for_one_who_cancels(thinker: MakeThinker) -> None:
    route, _ = thinker("1+1")
    slow = Slow(route.engine)  # type: ignore[arg-type]

    async def left() -> None:
        request = Conversation(ASK, interrupt=Interrupt())
        run = route.controller(replace(route, engine=slow), request, THINK, Sampling())  # type: ignore[arg-type]
        async with asyncio.timeout(0.05), aclosing(run):
            async for _ in run:
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(left())
    assert slow.opened == slow.closed == 1


@pytest.mark.parametrize("order", [("cancel", "leave"), ("leave", "cancel")])
def test_one_who_cancels_and_leaves_at_once_is_gone(thinker: MakeThinker, order: tuple[str, str]) -> None:
    route, _ = thinker("1+1")
    slow = Slow(route.engine)  # type: ignore[arg-type]
    interrupt = Interrupt()

    async def gone() -> None:
        run = route.controller(replace(route, engine=slow), Conversation(ASK, interrupt=interrupt), THINK, Sampling())  # type: ignore[arg-type]

        async def read() -> list[Event]:
            async with aclosing(run):
                return [event async for event in run]

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        for way in order:
            _ = task.cancel() if way == "leave" else interrupt.ask("cancel")
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(gone())
    assert slow.opened == slow.closed == 1


def test_a_cut_reply_teaches_the_pace_of_its_thinking(thinker: MakeThinker) -> None:
    route, asked = thinker("1+" * 60, token_delay=0.004, first_token_delay=0.1)
    asked.answer = "8"
    reply(route, budget(60))
    assert route.pace.first == pytest.approx(0.1, rel=0.5)  # of the reply, not of its second request
    assert route.pace.token == pytest.approx(0.004, rel=0.5)


def test_what_a_reserve_leaves_is_no_forecast(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 20)
    reply(route)
    assert reply(route, replace(THINK, reserve=4))[0].seconds_to_answer is None  # type: ignore[union-attr]


def test_a_running_reply_answers_now_when_it_is_asked_to(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 300)
    events = interrupted(route, "answer", after=10)
    assert text(events, "reasoning").startswith("1+1+1+")
    assert text(events, "reasoning").endswith(route.family.wrap_up)
    assert text(events, "answer") == "so 8"
    assert (end(events).cut, end(events).cut_by) == ("wrap_up", "client")
    assert end(events).reasoning_tokens == 11 + len(route.wrap_up.token_ids)
    assert end(events).record["cut_by"] == "client"


def test_answering_now_comes_before_the_budget_and_stays_inside_it(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 300)
    phrase = len(route.wrap_up.token_ids)
    for tokens, after in ((phrase + 40, 10), (phrase + 40, 39), (20, 5)):
        events = interrupted(route, "answer", after=after, policy=budget(tokens, tolerance=8))
        assert end(events).reasoning_tokens <= tokens
        assert text(events, "answer") == "so 8"
    assert (end(events).cut, end(events).cut_by, end(events).reasoning_tokens) == ("hard", "client", 6)


def test_answering_now_twice_or_too_late_changes_nothing(thinker: MakeThinker) -> None:
    route, _ = thinker("1+1")
    asked = Interrupt()
    asked.ask("answer")
    at_once = reply(route, interrupt=asked)
    assert (end(at_once).reasoning_tokens, text(at_once, "answer")) == (1 + len(route.wrap_up.token_ids), "so 8")
    late = interrupted(route, "answer", after=5)
    assert (text(late, "reasoning"), text(late, "answer"), end(late).cut) == ("1+1", "so 8", None)


def test_a_whole_reply_told_to_answer_now_gets_its_phrase_once(budgeter: MakeBudgeter) -> None:
    route, _ = budgeter("12", 40)
    events = interrupted(route, "answer", after=6)
    assert text(events, "answer").count(route.family.wrap_up) == 1
    assert (end(events).cut, end(events).answer_tokens) == ("wrap_up", 40)
    tight = interrupted(route, "answer", after=6, policy=budget(8))
    assert (text(tight, "answer"), end(tight).cut) == ("8" * 8, "hard")


def test_a_cancelled_reply_ends_with_what_it_has_said(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 300)
    events = interrupted(route, "cancel", after=10)
    assert (end(events).reason, end(events).stopped_by, end(events).cancelled) == ("stop", None, True)
    assert end(events).record["cancelled"] is True
    assert end(events).completion_tokens == len(ids(events)) == 10
    assert route.engine.running() == 0


def test_a_cancellation_is_not_taken_back() -> None:
    interrupt = Interrupt()
    interrupt.ask("cancel")
    interrupt.ask("answer")
    assert interrupt.wish == "cancel"


def test_a_reply_that_cannot_be_cut_says_so(thinker: MakeThinker) -> None:
    interrupt = Interrupt()
    route, _ = thinker("1+1+1")
    events = reply(route, sampling=Sampling(presence_penalty=0.5), interrupt=interrupt)
    assert interrupt.refusal is not None
    assert "presence_penalty" in interrupt.refusal
    assert text(events, "reasoning") == "1+1+1"


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_a_kind_cut_that_the_client_insists_on_is_refused_where_a_penalty_would_be_forgotten(
    thinker: MakeThinker, name: str
) -> None:
    route, _ = thinker("1+1", native=True)
    sampling = Sampling(**{name: 0.5})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=rf"reasond\.cut: {name}") as refused:
        reply(route, replace(budget(40, tolerance=32), insists=True), sampling)
    assert refused.value.field == "reasond.cut"
    assert text(reply(route, budget(40, tolerance=32), sampling), "answer") == "so 8"
    unlimited = replace(THINK, insists=True)
    assert text(reply(route, unlimited, sampling), "answer") == "so 8"


def interrupted(
    route: Route, wish: str, after: int, policy: Policy = THINK, sampling: Sampling | None = None
) -> list[Event]:
    """The reply to a request whose client asks for something behind the first `after` tokens."""
    interrupt = Interrupt()

    async def collect() -> list[Event]:
        events: list[Event] = []
        async with aclosing(
            route.controller(route, Conversation(ASK, interrupt=interrupt), policy, sampling or Sampling())
        ) as running:
            async for event in running:
                events.append(event)
                if len(ids(events)) == after:
                    interrupt.ask(wish)  # type: ignore[arg-type]
        return events

    return asyncio.run(collect())


def test_the_time_to_the_answer_is_estimated_and_brought_up_to_date(budgeter: MakeBudgeter) -> None:
    route, _ = budgeter("300", 300, token_delay=0.004)
    first = reply(route)
    assert isinstance(first[0], Decision)
    assert first[0].seconds_to_answer is not None  # from the field's own tokens: nothing else was measured yet
    second = reply(route)
    assert isinstance(second[0], Decision)
    assert second[0].seconds_to_answer == pytest.approx(1.2, rel=0.5)  # 300 tokens of 4 ms
    progress = [event for event in first + second if isinstance(event, Progress)]
    assert progress
    assert all(event.record()["budget"]["declared"] == 300 for event in progress)
    assert progress[-1].seconds_to_answer is not None
    assert progress[-1].seconds_to_answer < second[0].seconds_to_answer  # type: ignore[operator]


def test_a_forced_mode_counts_the_time_to_its_first_token_too(thinker: MakeThinker) -> None:
    route, _ = thinker("1+" * 50, token_delay=0.002)
    route.pace.began(1.0)
    route.pace.wrote(10, 0.1)
    decision = reply(route, budget(40))[0]
    assert isinstance(decision, Decision)
    assert decision.seconds_to_answer == pytest.approx(1.4)
    assert decision.record()["seconds_to_answer"] == pytest.approx(1.4)
