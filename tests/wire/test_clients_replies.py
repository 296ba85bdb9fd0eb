"""Replies that other servers damaged, on all three conversation APIs, streamed and whole."""

import json
from typing import Any

import pytest

from tests.wire.conversations import CONFIG, SHOWS, TOOLS, USER, Asked, chat, message, response
from tests.wire.test_clients_answers import KINDS, thinks

Q = TOOLS + SHOWS, CONFIG
SCHEMA: dict[str, Any] = {"type": "object"}
FUNCTION = {"name": "write_file", "parameters": SCHEMA}
OFFERED: dict[Any, Any] = {
    chat: {"type": "function", "function": FUNCTION},
    message: {"name": "write_file", "input_schema": SCHEMA},
    response: {"type": "function", **FUNCTION},
}
TEXT = "Models write <think>draft</think> before they answer.\nEnd: </think>\n"
CALL = f'<tool_call>\n{{"name": "write_file", "arguments": {json.dumps({"text": TEXT})}}}\n</tool_call>'
LIMITS = {chat: "max_tokens", message: "max_tokens", response: "max_output_tokens"}
CALLS = {chat: "tool_calls", message: "tool_use", response: "completed"}
CUT = {chat: "length", message: "max_tokens", response: "incomplete"}

pytestmark = pytest.mark.parametrize("api", [chat, message, response])


def with_tools(api: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    path, body = api(USER, tools=[OFFERED[api]], **fields)
    return path, body


def arguments(seen: Asked) -> list[Any]:
    """Of calls of the one tool that there is."""
    assert {name for name, _ in seen.told.calls} <= {"write_file"}
    return [json.loads(text) for _, text in seen.told.calls]


def test_thinking_tags_in_a_call_are_text(asks, api):
    seen = asks(*with_tools(api), *Q, reply=thinks("x</think>", CALL))
    assert arguments(seen) == [{"text": TEXT}]
    assert (seen.texts, seen.told.end) == (("x", ""), CALLS[api])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("reply", "thinking", "answer"),
    [
        ("x</think>\n\nUse `<think>draft</think>` as the example.", "x", "Use `<think>draft</think>` as the example."),
        ("a</think>b<think>c</think>d", "ac", "bd"),
        ("a</think></think>b", "a", "b"),
        ("cut</think> still </think>\n\nAnswer: 4", "cut", " still </think>\n\nAnswer: 4"),
    ],
)
def test_a_quoted_tag_is_text_and_a_second_thought_is_thinking(asks, api, kind, reply, thinking, answer):
    assert asks(*api(USER), *KINDS[kind], whole=reply).texts == (thinking, answer)


@pytest.mark.parametrize("fields", [{"reasoning_effort": "none"}, {"thinking_token_budget": 0}])
def test_a_reply_that_thinks_though_told_not_to_is_read_as_thinking(asks, api, fields):
    assert asks(*api(USER, **fields), whole="<think>hm</think>4").texts == ("hm", "4")


def test_a_call_in_the_thinking_ends_it_and_is_written_once(asks, api):
    seen = asks(*with_tools(api), *Q, reply=thinks(f"look.\n{CALL}", CALL))
    assert arguments(seen) == [{"text": TEXT}]
    assert seen.texts[0].strip() == "look."


def test_a_call_that_is_not_closed_ends_with_the_next(asks, api):
    """A penalty lets the model write without a grammar."""
    calls = "".join(f'<tool_call>{{"name":"write_file","arguments":{{"a":{i}}}}}' for i in (1, 2))
    seen = asks(*with_tools(api, presence_penalty=0.1), *Q, whole=f"x</think>{calls}</tool_call>")
    assert arguments(seen) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("limit", [8, 14, 20, 24, 40])
def test_a_call_that_the_limit_cuts_off_is_told_as_cut_and_never_as_text(asks, api, limit):
    """In its name, in what stands around that, and in its arguments."""
    fields = {LIMITS[api]: limit, "reasoning_effort": "none"}
    seen = asks(*with_tools(api, **fields), *Q, reply=thinks(answer=CALL))
    assert seen.told.end == CUT[api]
    assert seen.texts == ("", "")
    assert len(seen.told.calls) == (limit > 23)
    for name, text in seen.told.calls:
        assert name == "write_file"
        assert json.dumps({"text": TEXT}).startswith(text) or text == "{}"


def test_a_token_that_ends_the_answer_is_text_in_the_thinking(asks, api, tokenizer):
    stop = tokenizer.encode(" z")[-1]
    seen = asks(*api(USER, stop_token_ids=[stop]), whole="x z y</think>a z b")
    assert seen.texts[0] == "x z y"
    assert seen.texts[1].strip().startswith("a")
    assert "b" not in seen.texts[1]


def test_a_loop_in_the_thinking_ends_it_and_the_answer_follows(asks, api):
    fields = {LIMITS[api]: 4000, "repetition_detection": {"max_pattern_size": 64, "min_count": 3}}
    seen = asks(*api(USER, **fields), reply=thinks("Let me check that again, step by step. " * 200, "4"))
    assert seen.texts[1] == "4"
    assert seen.records[-1]["cut_by"] == "loop"


def test_who_wants_loops_found_is_refused_where_nobody_looks(asks, api):
    config = CONFIG + "loop.enabled = false\n"
    for wish in ({}, {"max_pattern_size": 0}, {"max_pattern_size": None}):
        assert asks(*api(USER, repetition_detection=wish), config=config).status == 200
    wish = {"max_pattern_size": 8, "min_count": 3}
    assert asks(*api(USER, repetition_detection=wish), config=config).error["param"] == "repetition_detection"


@pytest.mark.parametrize("cut", ["hard", "graceful"])
def test_behind_a_cut_the_models_own_close_is_dropped(asks, api, cut):
    said = iter(["one two three four five", " still thinking </think>\n\nAnswer: 4"])
    seen = asks(*api(USER, thinking_token_budget=2, reasond={"cut": cut}), reply=lambda begun: next(said))
    assert (seen.texts[0], seen.texts[1].split()) == ("one two", ["still", "thinking", "Answer:", "4"])
    assert seen.records[-1]["budget"]["used"] == 2


def test_one_odd_schema_does_not_refuse_the_tools_that_need_not_be_called(asks, api):
    """The grammar's library reads no such pattern."""
    odd = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)x", "format": "odd"}}}
    tool = json.loads(json.dumps(OFFERED[api]).replace('{"type": "object"}', json.dumps(odd)))
    seen = asks(*api(USER, tools=[tool]), *Q, reply=thinks("x</think>", CALL))
    assert arguments(seen) == [{"text": TEXT}]
