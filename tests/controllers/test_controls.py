"""The schema that the OpenAPI document shows of a control says what its reader takes."""

from typing import Any

import jsonschema
import pytest

from controllers.policy.controls import CONTROLS, EFFORTS, PolicyError, control_schema

VALUES: tuple[Any, ...] = (
    True,
    False,
    0,
    -1,
    -2,
    7,
    2**31,
    0.5,
    2.5,
    "",
    "none",
    "graceful",
    *EFFORTS,
    [],
    {},
    {"enable_thinking": True},
    {"enable_thinking": "yes"},
    {"thinking_budget": 5},
    {"a template's own": 1},
    {"type": "adaptive"},
    {"type": "sometimes"},
    {"type": "enabled", "budget_tokens": 5},
    {"display": "omitted"},
    {"effort": "low", "enabled": True, "max_tokens": 9, "exclude": False, "summary": "auto"},
    {"effort": 3},
    {"unknown": 1},
    {"mode": "auto", "think_threshold": 0.3, "budget": 12, "cut": "hard", "best_of": 2},
    {"mode": "maybe"},
    {"think_threshold": 2},
    {"think_threshold": True},
    {"budget": {"tokens": 5, "scope": "reply"}},
    {"budget": {"tokens": 5, "scope": "all"}},
    {"budget": "much"},
    {"cut": "gently"},
    {"best_of": 0},
    {"speculative": {"target": False}},
    {"speculative": {"target": 1}},
    {"speculative": {"takeover_tokens": 5}},
    {"speculative": {"takeover_tokens": -1}},
)


@pytest.mark.parametrize("field", CONTROLS)
def test_a_reader_takes_what_its_schema_allows_and_nothing_else(field: str) -> None:
    schema = jsonschema.Draft202012Validator(control_schema(field))
    assert schema.is_valid(None)
    for value in VALUES:
        try:
            list(CONTROLS[field](value, field))
            taken = True
        except PolicyError:
            taken = False
        assert schema.is_valid(value) == taken, value
