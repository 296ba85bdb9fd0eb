"""Fields that say nothing, or that nobody here knows, on all three conversation APIs: null is nothing wherever it
stands; unknown keys of messages, items, parts and tools pass; unknown controls are refused by name."""

import json
from typing import Any

import pytest

from server.apis.chat.schema import ChatRequest
from server.apis.messages.schema import MessagesRequest
from server.apis.responses.schema import ResponsesRequest
from tests.wire.conversations import AGAIN, SHOWS, TOOLS, USER, called, chat, message, response

MODELS = {chat: ChatRequest, message: MessagesRequest, response: ResponsesRequest}
ELSEWHERE = ["audio", "prediction", "functions", "conversation", "prompt", "guided_json", "temprature"]
"""Fields of other versions and other servers, and none at all."""
APIS = pytest.mark.parametrize("api", MODELS)


@APIS
def test_a_null_says_nothing(asks, api):
    path, body = api(USER)
    nulls = {name: None for name, field in MODELS[api].model_fields.items() if not field.is_required()}
    seen = asks(path, {**nulls, **dict.fromkeys(ELSEWHERE), **body})
    assert (seen.status, seen.prompt) == (200, "[user]hi"), seen.text


FUNCTION = {"name": "f", "description": None, "parameters": None, "strict": None, "x": None}
NESTED = [
    chat(USER, stream_options=dict.fromkeys(("include_usage", "continuous_usage_stats", "include_obfuscation", "x"))),
    chat(USER, tools=[{"type": "function", "function": FUNCTION, "x": None}], tool_choice=None),
    chat(USER, response_format={"type": "text", "json_schema": None}),
    chat(USER, reasoning={"effort": None, "max_tokens": None, "x": None}, reasond={"mode": None, "x": None}),
    chat(USER, chat_template_kwargs={"enable_thinking": None, "thinking_mode": None}),
    message(USER, thinking={"type": "enabled", "budget_tokens": None, "display": None, "x": None}),
    message(USER, output_config={"effort": None, "format": None, "x": None}, system=None, tool_choice=None),
    message(
        USER,
        tools=[{"name": "f", "input_schema": {"type": "object"}, "type": None, "defer_loading": None}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": None},
    ),
    response(USER, text={"format": None, "verbosity": None, "x": None}, stream_options={"include_obfuscation": None}),
    response(USER, reasoning={"effort": None, "summary": None, "x": None}),
    response(USER, tools=[{"type": "function", **FUNCTION, "defer_loading": None}], tool_choice=None),
]


@pytest.mark.parametrize(("path", "body"), NESTED)
def test_a_null_within_an_object_says_nothing(asks, path, body):
    seen = asks(path, body, TOOLS + SHOWS)
    assert seen.status == 200, seen.text
    assert seen.prompt.endswith("[user]hi")


NULLS = dict.fromkeys(("name", "id", "status", "phase", "refusal", "x"))
HISTORIES = [
    chat(
        {**USER, **NULLS, "tool_calls": None},
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": None}],
            **NULLS,
            "tool_calls": [{"id": None, "type": None, "function": {"name": "f", "arguments": None}, "custom": None}],
        },
        {"role": "tool", "content": [{"type": "text", "text": "r", "cache_control": None}], "tool_call_id": None},
    ),
    chat(
        {**USER, **NULLS},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": None}, "tool_calls": None},
        {"role": "function", "name": "f", "content": "r"},
    ),
    message(
        {**USER, **NULLS},
        {"role": "assistant", "content": [{**NULLS, "type": "tool_use", "id": None, "name": "f", "input": None}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": None, "content": [{"type": "text", "text": "r"}]}],
        },
    ),
    message(
        {"role": "user", "content": [{"type": "text", "text": "hi", "citations": None, "cache_control": None}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": None},
                {"type": "tool_use", "id": "t", "name": "f", "input": "", "cache_control": None},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": None, "content": "r"}]},
    ),
    response(
        {"type": None, **USER, **NULLS},
        {"type": "reasoning", "id": None, "summary": None, "content": None, "encrypted_content": None, "status": None},
        {**NULLS, "type": "function_call", "call_id": "c", "name": "f", "arguments": None, "namespace": None},
        {"type": "function_call_output", "call_id": None, "output": [{"type": "input_text", "text": "r", "x": None}]},
    ),
]


@pytest.mark.parametrize(("path", "body"), HISTORIES)
def test_nulls_in_a_history_say_nothing(asks, path, body):
    assert asks(path, body).prompt == f"[user]hi[assistant]{called('f')}[tool]r"


def test_a_result_that_is_null_is_an_empty_one(asks):
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    for output in ({"output": None}, {}):
        seen = asks(*response(USER, call, {"type": "function_call_output", "call_id": "c", **output}))
        assert seen.prompt == f"[user]hi[assistant]{called('f')}[tool]"


@APIS
def test_a_users_turn_without_content_is_refused(asks, api):
    assert "content" in asks(*api({"role": "user", "content": None})).error["message"]


NEW: dict[str, Any] = {"x_new": {"deep": [1]}, "x_flag": True}
PART = {"type": "text", "text": "hi", **NEW}
PATHS = [
    chat(
        {"role": "user", "content": [PART], **NEW},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", **NEW}, **NEW}]},
        {"role": "tool", "tool_call_id": "c", "content": "r", **NEW},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, **NEW}, **NEW}],
        tool_choice="none",
    ),
    message(
        {"role": "user", "content": [PART], **NEW},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}, **NEW}], **NEW},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r", **NEW}], **NEW},
        tools=[{"name": "f", "input_schema": {"type": "object"}, **NEW}],
        tool_choice={"type": "none"},
    ),
    response(
        {"type": "message", "role": "user", "content": [{**PART, "type": "input_text"}], **NEW},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", **NEW},
        {"type": "function_call_output", "call_id": "c", "output": "r", **NEW},
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, **NEW}],
        tool_choice="none",
    ),
]


@pytest.mark.parametrize(("path", "body"), PATHS)
def test_unknown_keys_of_messages_items_parts_and_tools_pass(asks, path, body):
    seen = asks(path, body)
    assert seen.prompt == f"[user]hi[assistant]{called('f')}[tool]r"
    assert seen.notes == []


@APIS
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"thinking_level": "high"}, "thinking_level"),
        ({"reasoning_mode": False}, "reasoning_mode"),
        ({"custom_params": {"thinking_budget": 8}}, "custom_params"),
        ({"thinking_config": {}}, "thinking_config"),
        ({"reasoning": {"effort": "low", "budget": 5}}, "reasoning.budget"),
        ({"thinking": {"type": "enabled", "max_tokens": 5}}, "thinking.max_tokens"),
        ({"reasond": {"modes": "think"}}, "reasond.modes"),
        ({"nvext": {"thinking": 5}}, "nvext.thinking"),
        ({"chat_template_kwargs": {"thinking_level": 2}}, "chat_template_kwargs.thinking_level"),
        ({"repetition_detection": 5}, "repetition_detection"),
    ],
)
def test_an_unknown_control_is_refused_by_its_name(asks, api, fields, name):
    assert asks(*api(USER, **fields)).error["param"] == name


def test_what_the_assistant_called_in_the_older_form_is_a_call(asks):
    turn = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    seen = asks(*chat(USER, turn, {"role": "function", "name": "f", "content": "r"}, AGAIN), SHOWS)
    arguments = json.dumps({"a": 1})[1:-1]
    assert seen.prompt == f"[user]hi[assistant]{called('f', arguments)}[tool]r[user]go on"
