"""One policy from every alias."""

from typing import Any

import pytest

from controllers.policy import CONTROLS, Defaults, Policy, PolicyError, fold, modes
from models.families import FAMILIES

AUTO = Defaults("auto")


def of(asked: dict[str, Any], family: str = "lhrm", defaults: Defaults = AUTO) -> Policy:
    return fold(asked, FAMILIES[family], defaults)


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
        ({"chat_template_kwargs": {"enable_thinking": False, "documents": []}}, "no_think"),
        ({"chat_template_kwargs": {"thinking": True}}, "think"),
        ({"think": True}, "think"),
        ({"think": "none"}, "no_think"),
        ({"think": "low"}, "think"),
        ({"reasond": {"mode": "auto"}}, "auto"),
        ({"reasond": {"mode": "think"}}, "think"),
    ],
)
def test_every_alias_of_a_mode(asked: dict[str, Any], mode: str) -> None:
    assert of(asked) == Policy(mode, "client")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {"thinking_token_budget": 100},
        {"thinking_token_budget": -1},
        {"thinking_budget": 0},
        {"thinking_budget_tokens": 5},
        {"reasoning_budget_tokens": 5},
        {"max_thinking_tokens": 5},
        {"nvext": {"max_thinking_tokens": 5}},
        {"reasoning": {"max_tokens": 5}},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"chat_template_kwargs": {"thinking_token_budget": 5}},
        {"reasond": {"budget": 5}},
    ],
)
def test_a_budget_is_refused_by_name_and_never_ignored(asked: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="budgets are not served") as refused:
        of(asked)
    assert refused.value.field.split(".")[0] == next(iter(asked))


@pytest.mark.parametrize(
    ("asked", "both"),
    [
        ({"reasoning_effort": "none", "enable_thinking": True}, ("reasoning_effort", "enable_thinking")),
        ({"reasoning": {"effort": "low", "enabled": False}}, ("reasoning.effort", "reasoning.enabled")),
        ({"think": True, "reasond": {"mode": "auto"}}, ("reasond.mode", "think")),
        ({"include_reasoning": True, "reasoning": {"exclude": True}}, ("reasoning.exclude", "include_reasoning")),
    ],
)
def test_two_fields_that_disagree_are_refused_with_both_names(asked: dict[str, Any], both: tuple[str, str]) -> None:
    with pytest.raises(PolicyError, match="contradict") as refused:
        of(asked)
    assert all(name in str(refused.value) for name in both)


def test_two_fields_that_agree_are_one() -> None:
    assert of({"reasoning_effort": "high", "enable_thinking": True}) == Policy("think", "client")


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": "very"},
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


def test_reasoning_can_be_hidden() -> None:
    assert of({"include_reasoning": False}).show_reasoning is False
    assert of({"reasoning": {"exclude": True}}).show_reasoning is False
    assert of({"include_reasoning": True, "reasoning": {"exclude": False}}).show_reasoning is True


def test_nulls_inside_an_object_say_nothing() -> None:
    assert of({"reasoning": {"effort": None, "enabled": False}}).mode == "no_think"


def test_every_control_that_is_null_says_nothing() -> None:
    assert of(dict.fromkeys(CONTROLS)) == Policy("auto", "route")
