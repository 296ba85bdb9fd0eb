"""Prompts: what a template is told of efforts and budgets, and replies that go on from a begun thought."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from controllers import CONTROLLERS
from controllers.generation.answer_format import shape
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Interrupt
from controllers.generation.prompt import prompt_of, render_prompt, template_arguments
from controllers.generation.route import Route, build_route, with_target
from controllers.generation.state import new_reply
from controllers.generation.transcripts import Span
from controllers.policy.fold import Defaults, Policy
from controllers.policy.loop import LoopConfig
from controllers.policy.speculation import SpeculativeConfig
from controllers.reply import leaving_room
from controllers.rules import RULES
from controllers.rules.base import NO_LIMITS, Rule
from controllers.rules.grammar import AnswerGrammar
from controllers.rules.limits import scope_limits
from controllers.rules.loop import Loop
from controllers.speculative.target import Target
from models.engines.base import Grammar, ProcessedPrompt, Sampling
from models.engines.scripted import ScriptedEngine
from models.formats import FAMILIES
from models.text.tokenizer import HubTokenizer
from models.tool_calls.tools import Tool

USER = {"role": "user", "content": "17*23?"}
THINK = Policy("think", "client")


def route_of(tokenizer: HubTokenizer, family: str = "qwen3") -> Route:
    engine = ScriptedEngine(tokenizer, ["so"], name=family)
    return build_route("r", CONTROLLERS["mode"], FAMILIES[family], engine, Defaults("think"))


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("<think>17*23", "<think>\n17*23"),
        ("<think>17*23=391.</think>so", "<think>\n17*23=391.</think>so"),
    ],
)
def test_a_begun_thought_stands_in_the_models_own_tags(tokenizer: HubTokenizer, content: str, end: str) -> None:
    request = Conversation([USER, {"role": "assistant", "content": content}], continue_final=True)
    prompt = render_prompt(route_of(tokenizer), request, "think", THINK)
    assert tokenizer.decode(prompt.token_ids, False).endswith(end)
    assert tokenizer.decode(prompt.opening, False) == end
    opening, closing = (tokenizer.control_id(tag) for tag in ("<think>", "</think>"))
    assert opening in prompt.opening
    assert (closing in prompt.opening) == ("</think>" in content)
    bare = render_prompt(route_of(tokenizer, "lhrm"), request, "think", THINK)
    assert opening in bare.opening


def test_a_thought_is_opened_where_the_mode_does_not_open_it(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer)
    route = replace(route, family=replace(route.family, behind={}))
    request = Conversation([USER, {"role": "assistant", "content": "<think>17"}], continue_final=True)
    prompt = render_prompt(route, request, "think", THINK)
    assert tokenizer.decode(prompt.opening, False) == "<think>17"


def test_the_template_gets_the_effort_in_its_own_words(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer)
    words = {"argument": "reasoning_effort", "low": "low", "high": "xhigh"}
    route = replace(route, family=replace(route.family, efforts=words))
    assert template_arguments(route, "think", THINK) == {}
    assert template_arguments(route, "no_think", replace(THINK, effort="high")) == {}
    assert template_arguments(route, "think", replace(THINK, effort="high")) == {"reasoning_effort": "xhigh"}
    assert template_arguments(route, "think", replace(THINK, budget=1024, requested=1024)) == {
        "reasoning_effort": "low"
    }
    assert template_arguments(route, "think", replace(THINK, budget=3, requested=3)) == {"reasoning_effort": "low"}


def test_the_template_gets_the_budget_where_it_reads_one(tokenizer: HubTokenizer) -> None:
    family = next(each for each in FAMILIES.values() if each.budget_argument is not None)
    route = replace(route_of(tokenizer), family=family)
    assert family.budget_argument is not None
    arguments = template_arguments(route, "think", replace(THINK, budget=600, requested=600))
    assert arguments[family.budget_argument.argument] == family.budget_argument.fitting(600)


def test_calls_that_no_grammar_knows_cannot_be_forced() -> None:
    written = FAMILIES["qwen3"].tools
    with pytest.raises(ValueError, match="not forced"):
        shape(written, [Tool("f")], "required", single=False, text=None, constrained=False)
    free = shape(written, [Tool("f")], "auto", single=False, text=None, constrained=False)
    assert free is not None
    assert free.grammar is None


def test_tokens_are_read_from_a_position_over_all_spans(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer)
    request = Conversation([USER])
    state = new_reply(route, Sampling(), render_prompt(route, request, "think", THINK), None)
    state.spans[:] = [Span(state.own, ids, [""] * len(ids)) for ids in ([1, 2], [3], [4, 5])]
    state.position = 5
    assert [list(state.tokens_since(position)) for position in (4, 3, 1, 0)] == [
        [5],
        [4, 5],
        [2, 3, 4, 5],
        [1, 2, 3, 4, 5],
    ]


def test_rules_that_have_nothing_to_say_say_nothing(tokenizer: HubTokenizer) -> None:
    route = route_of(tokenizer)
    state = new_reply(route, Sampling(), render_prompt(route, Conversation([USER]), "think", THINK), None)
    limits = scope_limits(state, THINK, None)
    silent = Rule()
    assert silent.asleep_until(state) > 10**9
    assert silent.engine_limits(state) is NO_LIMITS
    assert (silent.before_segment(state), silent.after_token(state)) == (None, None)
    assert AnswerGrammar(route, Grammar("regex", ".*")).engine_limits(state) is NO_LIMITS
    state.position, state.grammar_pending = 512, True
    assert Loop(LoopConfig(), limits).after_token(state) is None
    assert "loop" in RULES


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_score_is_not_waited_for_by_a_client_who_has_left(tokenizer: HubTokenizer) -> None:
    route = with_target(
        route_of(tokenizer), ScriptedEngine(tokenizer, ["5"]), SpeculativeConfig(target="large"), CircuitBreaker()
    )
    request, interrupt = Conversation([USER]), Interrupt()
    state = new_reply(route, Sampling(), render_prompt(route, request, "think", THINK), None)
    assert route.target is not None
    target = Target(route.target, request, THINK, "think")
    interrupt.ask("cancel")
    assert await target.score(state, [], interrupt) is None


@pytest.mark.parametrize(
    ("policy", "most", "mode", "reserve"),
    [
        (Policy("think", "route", reserve=256, reserve_share=0.5), 256, "think", 128),
        (Policy("think", "route", reserve=256, reserve_share=0.5), 64, "no_think", 32),
        (Policy("think", "client", reserve=256, reserve_share=0.5), 64, "think", 32),
        (Policy("think", "route", reserve=256), 300, "think", 256),
        (Policy("think", "route", reserve=256), 256, "no_think", 256),
        (Policy("think", "client", budget=20, requested=20, reserve=256), 64, "think", 42),
    ],
)
def test_what_is_kept_for_the_answer_of_a_small_limit(
    tokenizer: HubTokenizer, policy: Policy, most: int, mode: str, reserve: int
) -> None:
    settled = leaving_room(route_of(tokenizer), [], policy, Sampling(max_tokens=most))
    assert (settled.mode, settled.reserve) == (mode, reserve)


@pytest.mark.anyio
async def test_images_are_looked_at_by_the_engine_whose_prompt_they_are_in(tokenizer: HubTokenizer) -> None:
    async def look(token_ids: Sequence[int], images: Sequence[bytes]) -> ProcessedPrompt:
        return ProcessedPrompt([7, *token_ids], images)

    request, route = Conversation([USER], images=(b"a", b"b")), route_of(tokenizer)
    blind = await prompt_of(route, request, "think", THINK)
    assert isinstance(route.engine, ScriptedEngine)
    route.engine.process_images = look
    seen = await prompt_of(route, request, "think", THINK)
    assert (blind.image_inputs, seen.image_inputs) == (None, (b"a", b"b"))
    assert seen.token_ids == [7, *blind.token_ids]
    state = new_reply(route, Sampling(), seen, None)
    prompt, _ = state.next_request(None, {})
    assert (prompt.image_inputs, prompt.token_ids[0]) == ((b"a", b"b"), 7)
