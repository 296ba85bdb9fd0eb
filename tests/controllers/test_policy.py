"""One policy from every alias."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.policy.controls import CONTROLS, PolicyError
from controllers.policy.fold import BudgetSettings, Defaults, KeyLimits, Policy, cap_of, default_reserve, fold, modes
from controllers.policy.speculation import SpeculativeConfig
from models.formats import FAMILIES

AUTO = Defaults("auto")


def of(asked: dict[str, Any], family: str = "lhrm", defaults: Defaults = AUTO) -> Policy:
    return fold(asked, FAMILIES[family], defaults)


@pytest.mark.parametrize(
    ("family", "context", "reserve"), [("lhrm", 1024, 128), ("lhrm", 32_768, 256), ("selfbudgeter", 32_768, 0)]
)
def test_what_a_route_keeps_for_its_answers_by_itself(family: str, context: int, reserve: int) -> None:
    assert default_reserve(FAMILIES[family], context) == reserve


def test_a_request_that_says_nothing_gets_the_routes_policy() -> None:
    assert of({}) == Policy("auto", "route")
    assert of({"reasoning": {}, "thinking": None}, defaults=Defaults("auto", 0.3)) == Policy("auto", "route", 0.3)


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ({"reasoning_effort": "none"}, "no_think"),
        *[({"reasoning_effort": e}, "think") for e in ("minimal", "low", "medium", "high", "xhigh", "max")],
        ({"reasoning": {"effort": "none"}}, "no_think"),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, "think"),
        ({"reasoning": {"enabled": True}}, "think"),
        ({"reasoning": {"enabled": False}}, "no_think"),
        ({"thinking": {"type": "enabled"}}, "think"),
        ({"thinking": {"type": "disabled", "display": "omitted"}}, "no_think"),
        ({"thinking": {"type": "adaptive"}}, "auto"),
        ({"output_config": {"effort": "low"}}, "think"),
        ({"enable_thinking": True}, "think"),
        ({"enable_thinking": False}, "no_think"),
        ({"chat_template_kwargs": {"enable_thinking": False, "a_templates_own": []}}, "no_think"),
        ({"chat_template_kwargs": {"thinking": True}}, "think"),
        ({"think": True}, "think"),
        ({"think": "none"}, "no_think"),
        ({"think": "low"}, "think"),
        ({"reasond": {"mode": "auto"}}, "auto"),
        ({"reasond": {"mode": "think"}}, "think"),
    ],
)
def test_every_alias_of_a_mode(asked: dict[str, Any], mode: str) -> None:
    policy = of(asked)
    assert (policy.mode, policy.chosen_by) == (mode, "client")


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        ({"thinking_token_budget": 100}, 100),
        ({"thinking_budget": 7}, 7),
        ({"thinking_budget_tokens": 5}, 5),
        ({"reasoning_budget_tokens": 5}, 5),
        ({"max_thinking_tokens": 5}, 5),
        ({"nvext": {"max_thinking_tokens": 5}}, 5),
        ({"reasoning_budget": 5}, 5),
        ({"reasoning_max_tokens": 5}, 5),
        ({"chat_template_kwargs": {"thinking_budget": 5}}, 5),
        ({"reasoning": {"max_tokens": 5, "effort": "high"}}, 5),
        ({"reasoning_effort": {"effort": "low", "summary": "auto"}}, 1024),
        ({"reasoning": {"max_tokens": 5}}, 5),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, 2048),
        ({"reasond": {"budget": 5}}, 5),
        ({"reasond": {"budget": {"tokens": 5}}}, 5),
        ({"reasond": {"budget": {"tokens": 5, "scope": "thinking"}}}, 5),
        ({"reasoning_effort": "minimal"}, 128),
        ({"reasoning": {"effort": "low"}}, 1024),
        ({"output_config": {"effort": "medium"}}, 2048),
        ({"think": "high"}, 4096),
        ({"reasoning_effort": "xhigh"}, 8192),
        ({"reasoning_effort": "max"}, 16384),
        ({"thinking_budget": 0}, 0),
        ({"thinking_token_budget": -1}, None),
    ],
)
def test_every_alias_of_a_budget(asked: dict[str, Any], budget: int | None) -> None:
    policy = of(asked)
    assert (policy.budget, policy.requested) == (budget, -1 if budget is None else budget)


@pytest.mark.parametrize("effort", ["auto", "default", ""])
def test_an_effort_that_names_none_says_nothing(effort: str) -> None:
    assert of({"reasoning_effort": effort}) == of({})


@pytest.mark.parametrize("kind", ["adaptive", "auto"])
@pytest.mark.parametrize("own", ["think", "no_think"])
def test_adaptive_thinking_is_left_to_the_route(kind: str, own: Any) -> None:
    asked = {"thinking": {"type": kind, "budget_tokens": 0}, "output_config": {"effort": "high"}}
    assert (of(asked).mode, of(asked).chosen_by) == ("auto", "client"), "the model chooses"
    policy = of(asked, "qwen3", Defaults(own))
    assert (policy.mode, policy.chosen_by) == (own, "route")
    assert policy.requested == (4096 if own == "think" else None)


def test_an_overall_effort_says_nothing_to_a_model_that_never_thinks() -> None:
    policy = of({"output_config": {"effort": "high"}}, "plain", Defaults("no_think"))
    assert (policy.mode, policy.chosen_by, policy.effort) == ("no_think", "route", None)


def test_a_budget_of_0_beside_thinking_that_is_on_says_nothing() -> None:
    assert of({"thinking": {"type": "enabled", "budget_tokens": 0}}).requested is None
    assert of({"thinking": {"type": "disabled", "budget_tokens": 0}}).requested == 0
    assert of({"thinking": {"budget_tokens": 0}}).mode == "no_think"


def test_a_budget_leaves_the_mode_alone_unless_it_must_change_it() -> None:
    assert of({"thinking_budget": 5}).mode == "auto"
    assert of({"thinking_budget": 5}, defaults=Defaults("think")).chosen_by == "route"
    assert of({"thinking_budget": 5}, defaults=Defaults("no_think")).mode == "think"
    assert of({"thinking_budget": -1}, defaults=Defaults("no_think")).mode == "no_think"
    assert (of({"thinking_budget": 0}).mode, of({"thinking_budget": 0}).chosen_by) == ("no_think", "client")


def test_a_budget_of_0_stays_a_budget_where_the_family_cannot_leave_thinking_out() -> None:
    only_thinks = replace(FAMILIES["lhrm"], behind={"think": "<think>"}, direct=None)
    policy = fold({"thinking_budget": 0}, only_thinks, Defaults("think"))
    assert (policy.mode, policy.budget) == ("think", 0)


def test_the_request_goes_before_the_key_and_the_key_before_the_route() -> None:
    route = Defaults("auto", budgets=BudgetSettings(default=300))
    key = KeyLimits(budget=200)
    assert fold({"thinking_budget": 100}, FAMILIES["lhrm"], route, key).budget == 100
    assert fold({}, FAMILIES["lhrm"], route, key).budget == 200
    assert fold({}, FAMILIES["lhrm"], route).budget == 300
    assert fold({"thinking_budget": -1}, FAMILIES["lhrm"], route, key).budget is None
    assert fold({}, FAMILIES["lhrm"], route, key).requested is None


@given(
    asked=st.none() | st.integers(-1, 1000),
    numbers=st.lists(st.none() | st.integers(1, 1000), min_size=4, max_size=4),
)
def test_no_request_gets_past_a_cap(asked: int | None, numbers: list[int | None]) -> None:
    of_key, key_cap, of_route, route_cap = numbers
    policy = fold(
        {} if asked is None else {"thinking_budget": asked},
        FAMILIES["lhrm"],
        Defaults("auto", budgets=BudgetSettings(default=of_route, cap=route_cap)),
        KeyLimits(of_key, key_cap),
    )
    caps = [cap for cap in (key_cap, route_cap) if cap is not None]
    assert not caps or (policy.budget is not None and policy.budget <= min(caps))
    first = next((number for number in (asked, of_key, of_route) if number is not None), None)
    assert policy.requested == asked
    if first is not None and first >= 0:
        assert policy.budget == min([first, *caps])


def test_only_a_budget_that_somebody_named_is_written_into_the_models_field() -> None:
    family = FAMILIES["selfbudgeter"]
    capped = Defaults("think", budgets=BudgetSettings(cap=72))
    for asked in ({}, {"thinking_budget": -1}):
        policy = fold(asked, family, capped)
        assert (policy.budget, policy.cap, policy.prefill) == (72, 72, None)
    assert fold({"thinking_budget": 100}, family, capped).prefill == 72
    assert fold({"thinking_budget": 30}, family, capped, KeyLimits(cap=20)).prefill == 20
    assert fold({}, family, capped, KeyLimits(budget=50)).prefill == 50
    assert fold({}, family, Defaults("think", budgets=BudgetSettings(default=40))).prefill == 40
    assert fold({}, family, capped, KeyLimits(cap=20)).cap == 20
    assert fold({"thinking_budget": 30}, FAMILIES["lhrm"], AUTO).prefill is None


def test_a_request_may_leave_the_models_field_to_the_model() -> None:
    family = FAMILIES["selfbudgeter"]
    policy = fold({"reasond": {"budget": 30, "prefill": False}}, family, Defaults("think"))
    assert (policy.budget, policy.prefill) == (30, None)
    assert fold({"reasond": {"budget": 30, "prefill": True}}, family, Defaults("think")).prefill == 30
    with pytest.raises(PolicyError, match=r"reasond\.prefill: this route's model has no budget field"):
        of({"reasond": {"budget": 30, "prefill": False}})
    with pytest.raises(PolicyError, match=r"reasond\.prefill: expected true or false"):
        of({"reasond": {"prefill": 1}})


@pytest.mark.parametrize(
    ("asked", "budgets", "key", "chosen_by"),
    [
        ({}, BudgetSettings(default=0), KeyLimits(), "route"),
        ({}, BudgetSettings(default=90), KeyLimits(budget=0), "key"),
        ({"reasond": {"mode": "no_think"}}, BudgetSettings(default=0), KeyLimits(), "client"),
        ({}, BudgetSettings(cap=0), KeyLimits(), "cap"),
        ({"thinking_budget": 90}, BudgetSettings(), KeyLimits(cap=0), "cap"),
        ({"thinking_budget": -1}, BudgetSettings(cap=0), KeyLimits(), "cap"),
        ({"enable_thinking": True}, BudgetSettings(cap=0), KeyLimits(), "cap"),
        ({"reasoning_effort": "low"}, BudgetSettings(cap=0), KeyLimits(), "cap"),
        ({"reasoning_effort": "minimal"}, BudgetSettings(efforts={"minimal": 0}), KeyLimits(), "client"),
    ],
)
def test_a_budget_of_0_is_no_thinking_whoever_named_it(
    asked: dict[str, Any], budgets: BudgetSettings, key: KeyLimits, chosen_by: str
) -> None:
    for name in ("lhrm", "qwen3", "deepseek_r1"):
        policy = fold(asked, FAMILIES[name], Defaults("think", budgets=budgets), key)
        assert (policy.mode, policy.chosen_by, policy.budget) == ("no_think", chosen_by, 0)


def test_a_default_of_0_yields_to_a_request_that_lets_think() -> None:
    route = Defaults("no_think", budgets=BudgetSettings(default=0, cap=50))
    policy = fold({"enable_thinking": True}, FAMILIES["lhrm"], route, KeyLimits(budget=0))
    assert (policy.mode, policy.chosen_by, policy.budget) == ("think", "client", 50)


def test_a_key_without_tokens_is_refused_where_the_budget_is_the_whole_reply() -> None:
    for key in (KeyLimits(budget=0), KeyLimits(cap=0)):
        with pytest.raises(PolicyError, match="model: the limits of this API key are 0"):
            fold({}, FAMILIES["selfbudgeter"], Defaults("think"), key)
    assert fold({"thinking_budget": 5}, FAMILIES["selfbudgeter"], Defaults("think"), KeyLimits(budget=0)).prefill == 5


def test_the_limits_of_a_key_say_nothing_to_a_model_that_does_not_think() -> None:
    policy = fold({}, FAMILIES["plain"], Defaults("no_think"), KeyLimits(budget=0, cap=0))
    assert (policy.mode, policy.chosen_by, policy.budget, policy.cap) == ("no_think", "route", None, None)


def test_the_lower_cap_counts() -> None:
    assert cap_of(BudgetSettings(), None) is None
    assert cap_of(BudgetSettings(cap=5), KeyLimits()) == 5
    assert cap_of(BudgetSettings(cap=5), KeyLimits(cap=0)) == 0
    assert cap_of(BudgetSettings(), KeyLimits(cap=7)) == 7


def test_a_routes_own_efforts_reserve_and_cut_reach_the_policy() -> None:
    budgets = BudgetSettings(efforts={"low": 9}, reserve=64, graceful=False, hold_declared=True)
    policy = of({"reasoning_effort": "low"}, defaults=Defaults("auto", budgets=budgets))
    assert (policy.budget, policy.reserve, policy.tolerance, policy.hold_declared) == (9, 64, None, True)
    assert of({"reasond": {"cut": "graceful"}}, defaults=Defaults("auto", budgets=budgets)).tolerance == 32
    assert of({"reasond": {"cut": "hard"}}).tolerance is None


def test_a_whole_reply_with_a_reserve_is_not_cut_hard() -> None:
    kept = Defaults("think", budgets=BudgetSettings(reserve=4))
    with pytest.raises(PolicyError, match=r"reasond\.cut: this route's replies keep a reserve"):
        fold({"reasond": {"cut": "hard"}}, FAMILIES["selfbudgeter"], kept)
    assert fold({"reasond": {"cut": "hard"}}, FAMILIES["lhrm"], kept).tolerance is None
    assert fold({"reasond": {"cut": "hard"}}, FAMILIES["selfbudgeter"], Defaults("think")).tolerance is None


def test_an_effort_on_a_model_that_does_not_think_is_refused_and_none_is_not() -> None:
    with pytest.raises(PolicyError, match="reasoning_effort"):
        of({"reasoning_effort": "low"}, "plain", Defaults("no_think"))
    assert of({"reasoning_effort": "none"}, "plain", Defaults("no_think")).budget is None


@pytest.mark.parametrize(
    ("asked", "family", "field"),
    [
        ({"thinking_budget": 5}, "plain", "thinking_budget"),
        ({"thinking_budget": 0}, "selfbudgeter", "thinking_budget"),
        ({"reasond": {"budget": {"tokens": 5, "scope": "reply"}}}, "lhrm", "reasond.budget.scope"),
        ({"reasond": {"budget": {"tokens": 5, "scope": "thinking"}}}, "selfbudgeter", "reasond.budget.scope"),
        ({"reasond": {"budget": {"scope": "thinking"}}}, "plain", "reasond.budget.scope"),
        ({"enable_thinking": False}, "selfbudgeter", "enable_thinking"),
    ],
)
def test_a_budget_that_the_route_cannot_honour_is_refused_by_name(
    asked: dict[str, Any], family: str, field: str
) -> None:
    with pytest.raises(PolicyError) as refused:
        of(asked, family, Defaults("think" if family == "selfbudgeter" else "no_think"))
    assert refused.value.field == field
    assert field in str(refused.value)


def test_a_whole_replys_budget_is_asked_for_under_the_same_names() -> None:
    for asked in ({"thinking_budget": 5}, {"reasond": {"budget": {"tokens": 5, "scope": "reply"}}}):
        assert of(asked, "selfbudgeter", Defaults("think")).budget == 5


@pytest.mark.parametrize(
    ("asked", "both"),
    [
        ({"reasoning_effort": "none", "enable_thinking": True}, ("reasoning_effort", "enable_thinking")),
        ({"reasoning": {"effort": "low", "enabled": False}}, ("reasoning.effort", "reasoning.enabled")),
        ({"think": True, "reasond": {"mode": "auto"}}, ("reasond.mode", "think")),
        ({"include_reasoning": True, "reasoning": {"exclude": True}}, ("reasoning.exclude", "include_reasoning")),
        ({"enable_thinking": True, "thinking_budget": 0}, ("enable_thinking", "thinking_budget")),
        ({"enable_thinking": False, "thinking_budget": 9}, ("enable_thinking", "thinking_budget")),
        ({"reasond": {"mode": "auto", "budget": 0}}, ("reasond.mode", "reasond.budget")),
        ({"reasoning_effort": "none", "max_thinking_tokens": 9}, ("reasoning_effort", "max_thinking_tokens")),
        ({"reasoning_effort": "low", "reasoning": {"max_tokens": 9}}, ("reasoning_effort", "reasoning.max_tokens")),
        ({"thinking_budget": 5, "thinking_token_budget": 6}, ("thinking_token_budget", "thinking_budget")),
        ({"thinking_budget": 5, "thinking_token_budget": -1}, ("thinking_token_budget", "thinking_budget")),
    ],
)
def test_two_fields_that_disagree_are_refused_with_both_names(asked: dict[str, Any], both: tuple[str, str]) -> None:
    with pytest.raises(PolicyError, match="contradict") as refused:
        of(asked)
    assert all(name in str(refused.value) for name in both)


@pytest.mark.parametrize(
    ("asked", "mode", "budget", "requested"),
    [
        ({"thinking": {"type": "adaptive"}}, "auto", 1024, 1024),
        ({"thinking": {"type": "enabled"}}, "think", 1024, 1024),
        ({"thinking": {"type": "disabled"}}, "no_think", None, None),
        ({"reasond": {"mode": "no_think"}}, "no_think", None, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "think", 9, 9),
        ({"thinking_budget": 9}, "think", 9, 9),
        ({"thinking_budget": 0}, "no_think", 0, 0),
        ({"thinking_budget": -1}, "think", None, -1),
        ({"reasoning_effort": "low"}, "think", 1024, 1024),
    ],
)
def test_the_effort_of_thinking_and_answer_together_says_what_the_rest_leaves_open(
    asked: dict[str, Any], mode: str, budget: int | None, requested: int | None
) -> None:
    policy = of({**asked, "output_config": {"effort": "low"}})
    assert (policy.mode, policy.budget, policy.requested) == (mode, budget, requested)


def test_two_efforts_that_differ_still_contradict_each_other() -> None:
    with pytest.raises(PolicyError, match=r"reasoning_effort and output_config\.effort contradict"):
        of({"reasoning_effort": "high", "output_config": {"effort": "low"}})


def test_two_fields_that_agree_are_one() -> None:
    assert of({"reasoning_effort": "high", "enable_thinking": True}).mode == "think"
    assert of({"thinking_budget": 4096, "reasoning_effort": "high"}).budget == 4096
    assert of({"thinking_budget": 0, "enable_thinking": False}).mode == "no_think"


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": "very"},
        {"thinking": {"display": "loud"}},
        {"reasoning_effort": 3},
        {"reasoning_effort": ["low"]},
        {"reasoning": "high"},
        {"reasoning": {"efort": "high"}},
        {"enable_thinking": "yes"},
        {"think": 1},
        {"thinking": {"type": "on"}},
        {"thinking": {"type": []}},
        {"thinking": {"budget_tokens": "many"}},
        {"thinking_budget": True},
        {"thinking_budget": -2},
        {"thinking_budget": 2**31},
        {"thinking_budget": 1.5},
        {"reasond": {"budget": {"tokens": 5, "per": "day"}}},
        {"reasond": {"budget": {"tokens": 5, "scope": "all"}}},
        {"reasond": {"budget": {"tokens": 5, "scope": 3}}},
        {"reasond": {"cut": "soft"}},
        {"include_reasoning": "no"},
        {"reasoning": {"exclude": 1}},
        {"reasond": {"mode": "deep"}},
        {"reasond": {"mode": {}}},
        {"reasond": {"think_threshold": 1.5}},
        {"reasond": {"think_threshold": True}},
        {"reasond": {"temperature": 1}},
        {"chat_template_kwargs": []},
    ],
)
def test_a_control_with_a_wrong_value_is_refused_by_name(asked: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as refused:
        of(asked)
    assert refused.value.field.split(".")[0] == next(iter(asked))
    assert refused.value.field in str(refused.value)


def test_a_mode_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(PolicyError, match="no mode think; it has: no_think"):
        of({"think": True}, "plain", Defaults("no_think"))
    with pytest.raises(PolicyError, match="no mode auto"):
        of({"reasond": {"mode": "auto"}}, "qwen3", Defaults("think"))
    assert of({"reasoning_effort": "none"}, "plain", Defaults("no_think")).mode == "no_think"
    assert modes(FAMILIES["lhrm"]) == ("think", "no_think", "auto")


def test_a_threshold_needs_mode_auto() -> None:
    assert of({"reasond": {"think_threshold": 0.25}}) == Policy("auto", "route", 0.25)
    assert of({"reasond": {"mode": "auto", "think_threshold": 1}}).think_threshold == 1.0
    with pytest.raises(PolicyError, match="needs mode auto"):
        of({"reasond": {"mode": "think", "think_threshold": 0.5}})
    assert of({"think": True}, defaults=Defaults("auto", 0.5)) == Policy("think", "client")
    for other, field in (({"enable_thinking": True}, "enable_thinking"), ({"thinking_budget": 0}, "thinking_budget")):
        with pytest.raises(
            PolicyError, match=rf"reasond\.think_threshold needs mode auto; {field} makes it"
        ) as refused:
            of({**other, "reasond": {"think_threshold": 0.5}})
        assert refused.value.field == "reasond.think_threshold"
    with pytest.raises(PolicyError, match="this request's mode is think"):
        of({"reasond": {"think_threshold": 0.5}}, defaults=Defaults("think"))


def test_the_best_of_several_replies_is_the_requests_wish_over_the_routes() -> None:
    judged = Defaults("auto", best_of=4)
    assert of({}).best_of == 1
    assert of({}, defaults=judged).best_of == 4
    assert of({"reasond": {"best_of": 8}}, defaults=judged).best_of == 8
    assert of({"reasond": {"best_of": 1}}, defaults=judged).best_of == 1


@pytest.mark.parametrize("best_of", [0, 65, True, "4", 2.0])
def test_a_number_of_replies_is_a_number_that_can_be_ranked(best_of: object) -> None:
    with pytest.raises(PolicyError, match="from 1 to 64") as refused:
        of({"reasond": {"best_of": best_of}}, defaults=Defaults("auto", best_of=1))
    assert refused.value.field == "reasond.best_of"


def test_without_a_judge_there_is_no_best() -> None:
    with pytest.raises(PolicyError, match="no judge"):
        of({"reasond": {"best_of": 2}})


def test_reasoning_can_be_hidden() -> None:
    assert of({"include_reasoning": False}).show_reasoning is False
    assert of({"reasoning": {"exclude": True}}).show_reasoning is False
    assert of({"include_reasoning": True, "reasoning": {"exclude": False}}).show_reasoning is True


@pytest.mark.parametrize(
    "hide", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}, {"thinking": {"display": "omitted"}}]
)
def test_thinking_that_stands_in_the_answer_cannot_be_hidden(hide: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="stand together") as refused:
        of(hide, "selfbudgeter", Defaults("think"))
    assert refused.value.field in str(refused.value)
    assert of({"include_reasoning": True}, "selfbudgeter", Defaults("think")).show_reasoning
    assert not of(hide, "plain", Defaults("no_think")).show_reasoning


def test_a_way_of_cutting_that_a_route_cannot_have_is_refused() -> None:
    kind, hard = {"reasond": {"cut": "graceful"}}, {"reasond": {"cut": "hard"}}
    for asked in (kind, hard):
        with pytest.raises(PolicyError, match=r"reasond\.cut: .*does not think"):
            of(asked, "plain", Defaults("no_think"))
    with pytest.raises(PolicyError, match=r"reasond\.cut: .*no reserve"):
        of(kind, "selfbudgeter", Defaults("think"))
    assert of(hard, "selfbudgeter", Defaults("think")).tolerance is None
    assert of(kind, "selfbudgeter", Defaults("think", budgets=BudgetSettings(reserve=5))).insists
    assert of(kind).insists
    assert not of({}).insists
    assert not of(hard).insists


def test_lengths_of_takeovers_beside_no_target_contradict_each_other() -> None:
    both = {"reasond": {"speculative": {"takeover_tokens": 5, "target": False}}}
    with pytest.raises(PolicyError, match="contradict") as refused:
        of(both, defaults=Defaults("think", speculation=SpeculativeConfig(target="large")))
    assert "reasond.speculative.target" in str(refused.value)
    assert "reasond.speculative.takeover_tokens" in str(refused.value)


def test_nulls_inside_an_object_say_nothing() -> None:
    assert of({"reasoning": {"effort": None, "enabled": False}}).mode == "no_think"


def test_every_control_that_is_null_says_nothing() -> None:
    assert of(dict.fromkeys(CONTROLS)) == Policy("auto", "route")
