"""Controls of other houses, as their clients send them: read, refused by name, or told."""

import json

import httpx
import pytest

from tests.wire.conversations import CONFIG, SHOWS, TOOLS, USER, ask, chat, message, response, tokenizer_with
from tests.wire.served import served


@pytest.mark.parametrize(
    ("fields", "mode", "requested"),
    [
        ({"reasoning_effort": {"effort": "low", "summary": "auto"}}, "think", 1024),
        ({"reasoning_effort": "auto"}, "think", None),
        ({"reasoning_effort": "default"}, "think", None),
        ({"reasoning_effort": ""}, "think", None),
        ({"reasoning": {"effort": "low", "max_tokens": 500}}, "think", 500),
        ({"reasoning": {"effort": "medium", "context": "all_turns"}}, "think", 2048),
        ({"reasoning_effort": {"effort": "none"}}, "no_think", None),
        ({"thinking": {"type": "auto"}}, "think", None),
        ({"thinking": {"type": "adaptive"}}, "think", None),
        ({"thinking": {"type": "enabled", "clear_thinking": False}}, "think", None),
        ({"thinking": {"type": "enabled", "keep": "all"}}, "think", None),
        ({"thinking": {"budget_tokens": 0}}, "no_think", 0),
        ({"reasoning_budget": 9}, "think", 9),
        ({"reasoning_max_tokens": 9}, "think", 9),
        ({"max_tokens": -1}, "think", None),
        ({"max_completion_tokens": -1}, "think", None),
        ({"cache_prompt": True, "timings_per_token": True, "separate_reasoning": True}, "think", None),
    ],
)
def test_a_control_is_read(asks, fields, mode, requested):
    record = asks(*chat(USER, **fields)).records[-1]
    assert (record["mode"], (record.get("budget") or {}).get("requested")) == (mode, requested)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_budget": 8}},
            "chat_template_kwargs.reasoning_budget",
        ),
        ({"chat_template_kwargs": {"thinking_budget": 8}}, "chat_template_kwargs.thinking_budget"),
        ({"chat_template_kwargs": {"thinking_mode": "disabled"}}, "chat_template_kwargs.thinking_mode"),
        ({"chat_template_kwargs": {"low_effort": True}}, "chat_template_kwargs.low_effort"),
        ({"custom_params": {"thinking_budget": 8}}, "custom_params"),
        ({"reasoning_effort": "ultra"}, "reasoning_effort"),
        ({"reasoning_effort": {"effort": "ultra"}}, "reasoning_effort.effort"),
        ({"reasoning": {"efort": "low"}}, "reasoning.efort"),
        ({"thinking": {"type": "enabled", "budget": 5}}, "thinking.budget"),
        ({"enable_thinking": "false"}, "enable_thinking"),
        ({"separate_reasoning": False}, "separate_reasoning"),
        ({"options": {"num_ctx": 5}}, "options"),
        ({"max_tokens": -2}, "max_tokens"),
    ],
)
def test_what_nothing_would_come_of_is_refused_by_name(asks, fields, name):
    seen = asks(*chat(USER, **fields))
    assert seen.status == 400
    assert json.loads(seen.text)["error"]["param"] == name


def test_an_argument_that_the_template_reads_reaches_it(asks):
    reads = "{%- if thinking_budget is defined %}[budget {{ thinking_budget }}]{% endif %}"
    reads += "{%- if clear_thinking is defined %}[clear {{ clear_thinking }}]{% endif %}"
    hints = {"thinking": {"type": "enabled", "clear_thinking": False}, "chat_template_kwargs": {"thinking_budget": 8}}
    seen = asks(*chat(USER, **hints), reads + SHOWS)
    assert seen.prompt == "[budget 8][clear False][user]hi"
    assert seen.records[-1]["budget"]["requested"] == 8
    assert seen.notes == []


def test_a_hint_that_the_template_does_not_know_is_told(asks):
    told = ["thinking.keep: this model's chat template does not know it"]
    assert asks(*chat(USER, thinking={"type": "enabled", "keep": "all"})).notes == told


def test_a_limit_of_minus_1_is_none_on_responses(asks):
    assert asks(*response(USER, max_output_tokens=-1)).status == 200


def test_usage_may_be_asked_for_where_it_always_comes(asks):
    assert asks(*response(USER, stream_options={"include_usage": True, "include_obfuscation": False})).status == 200


def test_text_may_be_asked_for_where_nothing_else_is_made(asks):
    assert asks(*chat(USER, modalities=["text"])).status == 200
    assert asks(*chat(USER, modalities=["text", "audio"])).error["param"] == "modalities.1"


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 500, "stream": False, "stop_sequences": ["x"]}])
def test_the_tokens_of_a_whole_request_may_be_counted(fields):
    tool = {"name": "f", "input_schema": {"type": "object"}}
    body = {"messages": [USER], "tools": [tool], "system": "s", "tool_choice": {"type": "any"}, **fields}
    seen = ask("/v1/messages/count_tokens", body, TOOLS + SHOWS)
    assert seen.status == 200, seen.text
    assert json.loads(seen.text)["input_tokens"] > 10


NAMES = CONFIG + 'names = ["claude-sonnet-5", "gpt-6"]\n'


@pytest.mark.parametrize("request_of", [chat, message, response])
def test_a_route_has_further_names(asks, request_of):
    path, body = request_of(USER, model="gpt-6")
    assert asks(path, body, config=NAMES).status == 200


def test_an_unknown_model_is_told_which_there_are(asks):
    seen = asks(*chat(USER, model="gpt-4"), config=NAMES)
    assert seen.status == 404
    assert json.loads(seen.text)["error"]["message"].endswith("there is q, claude-sonnet-5, gpt-6")


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/v1/chat/completions", {"messages": [USER], "n": 4}, ("n", "reasond.best_of")),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, ("n", "prompt")),
    ],
)
def test_the_replies_of_one_request_are_bounded(asks, path, body, fields):
    seen = asks(path, body, config="[server]\nmax_replies = 3\n" + CONFIG)
    assert seen.status == 400
    error = json.loads(seen.text)["error"]
    assert error["param"] == fields[0]
    assert all(field in error["message"] for field in fields)


def test_all_names_are_listed():

    with served(tokenizer_with(SHOWS), ["x"], NAMES) as server:
        listed = httpx.get(f"{server.url}/v1/models").json()["data"]
        one = httpx.get(f"{server.url}/v1/models/gpt-6").json()
    assert [card["id"] for card in listed] == ["q", "claude-sonnet-5", "gpt-6"]
    assert one["id"] == "gpt-6"
