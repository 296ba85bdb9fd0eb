"""An answer by default, whatever the limit; formats and efforts in corners in which other servers lost them."""

import json
from typing import Any

import pytest

from tests.wire.conversations import CONFIG, SHOWS, USER, chat, message, response

LONG = " ".join(f"w{i}" for i in range(300))
OPENS = SHOWS.partition("{%- if enable_thinking")[0] + "{{ '<think>\\n' }}{% endif %}"
KINDS = {"q": (SHOWS, CONFIG), "r1": (OPENS, CONFIG.replace("qwen3", "qwq"))}
"""A model that may be told not to think, and one whose template ends within the thinking."""
OFF = CONFIG + "budgets = { reserve = 0 }\n"
SCHEMA = {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
FORMAT = {"type": "json_schema", "json_schema": SCHEMA}
FLAT = {"format": {"type": "json_schema", **SCHEMA}}
JSON = '{"a": 1}'


def thinks(thought: str = LONG, answer: str = "4") -> Any:
    """A model that thinks at length, and answers behind the end of its thinking."""
    return lambda begun: answer if "</think>" in begun else thought


LIMITED = [
    ("max_tokens", chat(USER)),
    ("max_completion_tokens", chat(USER)),
    ("max_tokens", message(USER)),
    ("max_output_tokens", response(USER)),
]


@pytest.mark.parametrize(("name", "request_of"), LIMITED)
@pytest.mark.parametrize("limit", [20, 64, 200, 300, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_limit_leaves_an_answer(asks, name, request_of, limit, kind):
    path, body = request_of
    seen = asks(path, {**body, name: limit}, *KINDS[kind], reply=thinks())
    thought, answer = seen.texts
    assert answer == "4"
    assert bool(thought) is (limit > 100)
    assert seen.records[-1]["chosen_by"] == ("route" if limit > 100 else "reserve")


def test_a_client_that_wants_a_thought_gets_half_of_a_small_limit(asks):
    seen = asks(*chat(USER, max_tokens=64, reasond={"mode": "think"}), reply=thinks())
    thought, answer = seen.texts
    assert (bool(thought), answer) == (True, "4")
    assert (seen.records[-1]["chosen_by"], seen.records[-1]["cut_by"]) == ("client", "reserve")


def test_a_budget_below_the_limit_is_the_clients_own_division(asks):
    seen = asks(*chat(USER, max_tokens=64, thinking_token_budget=20), reply=thinks())
    assert seen.texts[1] == "4"
    assert (seen.records[-1]["budget"]["used"], seen.records[-1]["cut_by"]) == (20, "budget")


def test_a_route_may_keep_nothing_for_the_answer(asks):
    assert asks(*chat(USER, max_tokens=64), config=OFF, reply=thinks()).texts[1] == ""


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("fields", [{}, {"reasond": {"cut": "graceful"}}, {"reasoning_effort": "none"}])
def test_what_is_kept_for_the_answer_refuses_no_request(asks, penalty, fields):
    """A second segment would forget the penalty, so such a reply is not cut."""
    seen = asks(*chat(USER, max_tokens=300, **{penalty: 0.5}, **fields), reply=thinks("hm</think>4", "4"))
    assert seen.texts[1] == "4"


def test_where_the_context_ends_is_told_only_where_it_cut(asks):
    assert "budget" not in asks(*chat(USER), reply=thinks("hm</think>4")).records[-1]
    record = asks(*chat(USER), reply=thinks(" ".join(f"w{i}" for i in range(400))), context_length=1024).records[-1]
    assert (record["cut_by"], record["budget"]["used"]) == ("reserve", record["budget"]["enforced"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"n": 4}, {"include_reasoning": False}, {"thinking_token_budget": 2}])
def test_json_is_the_answer_however_the_thinking_ends(asks, fields, kind):
    thought = "hm</think>" if "thinking_token_budget" not in fields else LONG
    seen = asks(*chat(USER, response_format=FORMAT, **fields), *KINDS[kind], reply=thinks(thought, JSON))
    thought, answer = seen.texts
    assert answer == JSON
    assert "{" not in thought
    assert bool(thought) is ("include_reasoning" not in fields)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat(USER, response_format=FORMAT, thinking_token_budget=0),
        chat(USER, response_format=FORMAT, max_tokens=12),
        response(USER, text=FLAT, reasoning={"effort": "none"}),
        message(USER, output_config=FLAT, thinking={"type": "disabled"}),
    ],
)
def test_json_without_thinking_is_the_answer(asks, path, body):
    assert asks(path, body, reply=thinks(answer=JSON)).texts == ("", JSON)


def test_json_that_is_cut_is_no_thinking(asks):
    thought, answer = asks(*chat(USER, response_format=FORMAT, max_tokens=4), reply=thinks(answer=JSON)).texts
    assert JSON.startswith(answer) and len(answer) < len(JSON)
    assert thought == ""


def test_a_stop_string_ends_json(asks):
    seen = asks(*chat(USER, response_format=FORMAT, stop=["}"]), reply=thinks("hm</think>", JSON))
    assert seen.texts == ("hm", JSON[:-1])


CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}


def test_json_follows_a_thought_that_the_client_began(asks):
    turn = {"role": "assistant", "content": "<think>\nhm"}
    seen = asks(*chat(USER, turn, response_format=FORMAT, **CONTINUED), reply=thinks(" and so</think>", JSON))
    assert seen.texts == (" and so", JSON)


def test_half_an_answer_has_no_format_any_more(asks):
    turn = {"role": "assistant", "content": '{"a":'}
    seen = asks(*chat(USER, turn, response_format=FORMAT, **CONTINUED), reply=thinks(" 1}"))
    assert seen.status == 400
    assert json.loads(seen.text)["error"]["param"] == "response_format"


PRINTS = "[{{ reasoning_effort }}]" + SHOWS
EFFORTS = """
[families.levels]
like = "qwen3"
efforts = { argument = "reasoning_effort", low = "low", medium = "medium", xhigh = "xhigh" }
"""


@pytest.mark.parametrize(
    ("path", "body", "shown"),
    [
        (*chat(USER, reasoning_effort="low"), "low"),
        (*chat(USER, reasoning={"effort": "high"}), "medium"),
        (*chat(USER, reasoning_effort={"effort": "xhigh", "summary": "auto"}), "xhigh"),
        (*message(USER, output_config={"effort": "low"}), "low"),
        (*response(USER, reasoning={"effort": "medium"}), "medium"),
    ],
)
def test_an_effort_reaches_the_template_in_its_own_words_with_its_budget(asks, path, body, shown):
    seen = asks(path, body, PRINTS, CONFIG.replace('"qwen3"', '"levels"') + EFFORTS)
    assert seen.status == 200, seen.text
    assert seen.prompt == f"[{shown}][user]hi"
    assert seen.records[-1]["budget"]["requested"] > 0


def test_two_efforts_that_differ_contradict_each_other(asks):
    seen = asks(*chat(USER, reasoning_effort="low", reasoning={"effort": "high"}))
    assert seen.status == 400
    assert json.loads(seen.text)["error"]["param"] == "reasoning.effort"
