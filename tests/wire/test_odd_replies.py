"""Replies that do not keep to their format: tags that are quoted, opened again or closed twice, calls in odd places,
thinking that nobody asked for, prefill. Each streamed and whole, in deltas of one token and of three."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.conftest import ROOT

TEMPLATE = (ROOT / "demo" / "tokenizer" / "chat_template.jinja").read_text(encoding="utf-8")
ASSISTANT = "'<|im_start|>assistant\\n' }}"
OPENS = TEMPLATE.replace(ASSISTANT, "'<|im_start|>assistant\\n<think>\\n' }}")
"""A template that ends within the thinking."""
SETTINGS = """
[engines.plain]
kind = "scripted"
model = "demo/tokenizer"
[engines.opens]
kind = "scripted"
model = "demo/tokenizer"
[routes.q]
engine = "plain"
family = "qwen3"
mode = "think"
[routes.r1]
engine = "opens"
family = "qwq"
[routes.lhrm]
engine = "plain"
family = "lhrm"
"""
USER = {"role": "user", "content": "17*23?"}
TOOL = {"type": "function", "function": {"name": "write_file", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "write_file", "arguments": {"text": "a</think>b"}}\n</tool_call>'


def reply(replies: list[str], fields: dict[str, Any], route: str = "q", step: int = 1) -> dict[str, Any]:
    """The message of a whole chat reply and of a streamed one, which must be the same, and the record."""
    whole = asyncio.run(answered(replies, {"model": route, "messages": [USER], **fields}, step))
    events = asyncio.run(answered(replies, {"model": route, "messages": [USER], **fields, "stream": True}, step))
    choice = whole.json()["choices"][0]
    message = choice["message"]
    got = {
        "reasoning": message.get("reasoning") or "",
        "content": message["content"] or "",
        "calls": [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", [])],
    }
    assert streamed(events.text) == got
    return {**got, **{key: choice["reasond"].get(key) for key in ("segments", "budget", "cut")}}


async def answered(replies: list[str], body: dict[str, Any], step: int) -> httpx.Response:
    engines = {
        name: ScriptedEngine(
            HubTokenizer(ROOT / "demo" / "tokenizer", chat_template=template), replies, name=name, tokens_per_step=step
        )
        for name, template in (("plain", TEMPLATE), ("opens", OPENS))
    }
    app = create_app(parse_config(SETTINGS, ROOT), engines)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def streamed(text: str) -> dict[str, Any]:
    got: dict[str, Any] = {"reasoning": "", "content": "", "calls": []}
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            delta = choice["delta"]
            got["reasoning"] += delta.get("reasoning") or ""
            got["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                if call.get("id"):
                    got["calls"].append((call["function"]["name"], ""))
                name, arguments = got["calls"][call["index"]]
                got["calls"][call["index"]] = (name, arguments + call["function"]["arguments"])
    return got


def prefilled(**turn: Any) -> dict[str, Any]:
    turns = [USER, {"role": "assistant", "content": "", **turn}]
    return {"messages": turns, "continue_final_message": True, "add_generation_prompt": False}


@pytest.fixture(params=[1, 3])
def step(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("route", ["q", "r1"])
def test_a_closing_tag_in_a_call_is_text(route: str, step: int) -> None:
    got = reply(["x</think>", CALL], {"tools": [TOOL]}, route, step)
    assert (got["reasoning"], got["content"], got["calls"]) == ("x", "", [("write_file", '{"text": "a</think>b"}')])


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("x</think>\n\nUse `<think>draft</think>` as the example.", "x", "Use `<think>draft</think>` as the example."),
        ("x</think>\n\n```\n<think>a</think>\n```\ndone", "x", "```\n<think>a</think>\n```\ndone"),
        ('x</think>say "<think>" first', "x", 'say "<think>" first'),
        ("a</think>b<think>c</think>d", "ac", "bd"),
        ("a</think></think>b", "a", "b"),
        ("cut</think> still </think>\n\nAnswer: 4", "cut", " still </think>\n\nAnswer: 4"),
    ],
)
def test_a_quoted_tag_is_text_and_a_second_thought_is_thinking(
    text: str, reasoning: str, content: str, step: int
) -> None:
    got = reply([text], {}, step=step)
    assert (got["reasoning"], got["content"]) == (reasoning, content)


@pytest.mark.parametrize("fields", [{"reasoning_effort": "none"}, {"thinking_token_budget": 0}])
def test_a_reply_that_thinks_though_told_not_to_is_read_as_thinking(fields: dict[str, Any], step: int) -> None:
    got = reply(["<think>hm</think>4"], fields, step=step)
    assert (got["reasoning"], got["content"]) == ("hm", "4")


@pytest.mark.parametrize("cut", ["hard", "graceful"])
def test_behind_a_cut_the_models_own_close_is_dropped(cut: str, step: int) -> None:
    fields = {"thinking_token_budget": 2, "reasond": {"cut": cut}}
    got = reply(["one two three four five", " still thinking </think>\n\nAnswer: 4"], fields, step=step)
    assert (got["reasoning"], got["content"].split()) == ("one two", ["still", "thinking", "Answer:", "4"])
    assert (got["budget"]["used"], got["cut"]) == (2, "hard")


@pytest.mark.parametrize("route", ["q", "lhrm"])
def test_a_model_that_thinks_again_behind_a_cut_is_not_cut_for_ever(route: str, step: int) -> None:
    fields = {"thinking_token_budget": 8, "reasond": {"mode": "think", "cut": "hard"}, "max_tokens": 400}
    got = reply(["<think>hm and hm and hm and hm</think>answer"], fields, route, step)
    assert got["segments"] == 2
    assert got["content"].endswith("answer")
    assert got["budget"]["used"] == 8


def test_a_second_thought_counts_against_the_budget(step: int) -> None:
    fields = {"thinking_token_budget": 5, "reasond": {"cut": "hard"}}
    got = reply(["a b</think>c<think>d e f g h i</think>j", "so"], fields, step=step)
    assert got["budget"]["used"] == 5
    assert got["content"].startswith("c")


def test_a_call_in_the_thinking_ends_it_and_is_written_once(step: int) -> None:
    call = '<tool_call>\n{"name": "write_file", "arguments": {"q": 1}}\n</tool_call>'
    got = reply([f"look.\n{call}", call], {"tools": [TOOL]}, step=step)
    assert (got["reasoning"].strip(), got["calls"]) == ("look.", [("write_file", '{"q": 1}')])


def test_a_call_that_is_not_closed_ends_with_the_next(step: int) -> None:
    text = 'x</think><tool_call>{"name":"f","arguments":{"a":1}}<tool_call>{"name":"g","arguments":{"b":2}}</tool_call>'
    got = reply([text], {"tools": [TOOL], "presence_penalty": 0.1}, step=step)
    assert got["calls"] == [("f", '{"a":1}'), ("g", '{"b":2}')]


def test_stops_end_the_answer_alone(step: int) -> None:
    fields = {"stop": ["Question:", "</s>", "\n\n"], "max_tokens": 256}
    got = reply(["Question: 2+2. so 4</think>\n\n4\nQuestion: next"], fields, step=step)
    assert (got["reasoning"], got["content"]) == ("Question: 2+2. so 4", "4\n")


def test_white_space_before_the_thinking_is_no_answer(step: int) -> None:
    got = reply(["\n<think>hm</think>hi"], {}, "lhrm", step)
    assert (got["reasoning"], got["content"]) == ("hm", "hi")


@pytest.mark.parametrize(
    ("turn", "text", "reasoning", "content"),
    [
        ({"content": "The answer is"}, " 391", "", " 391"),
        ({"content": "<think>17*23=391.</think>"}, "so 391", "", "so 391"),
        ({"content": "<think>17*23"}, "=391</think>391", "=391", "391"),
        ({"reasoning_content": "17*23"}, "=391</think>391", "=391", "391"),
    ],
)
@pytest.mark.parametrize("route", ["q", "r1"])
def test_a_reply_goes_on_from_where_the_client_left_it(
    turn: dict[str, Any], text: str, reasoning: str, content: str, route: str, step: int
) -> None:
    got = reply([text], prefilled(**turn), route, step)
    assert (got["reasoning"], got["content"]) == (reasoning, content)
