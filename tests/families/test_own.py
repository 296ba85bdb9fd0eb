"""A family that nobody here wrote: an invented template, and the table that a user writes from docs/families.md."""

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
from tests.wire.test_odd_replies import streamed

TEMPLATE = """
{%- if tools %}{{ 'You may ask:\n' }}{% for tool in tools %}{{ tool.function | tojson + '\n' }}{% endfor %}{% endif %}
{%- for message in messages %}
{{- '== ' + message.role + ' ==\n' }}
{%- if message.reasoning_content %}
{{- 'Let me work this out. ' + message.reasoning_content + ' Here is what I found. ' }}
{%- endif %}
{{- message.content or '' }}
{%- if message.tool_calls %}
{{- 'I have to ask: [' }}
{%- for call in message.tool_calls %}
{{- call.function.name + '(' }}
{%- for key, value in call.function.arguments.items() %}
{{- key + '=' }}{{ "'" + value + "'" if value is string else value }}{{ '' if loop.last else ', ' }}
{%- endfor %}
{{- ')' if loop.last else '), ' }}
{%- endfor %}
{{- '] Then I go on.' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '== assistant ==\n' }}
{{- 'Here is what I found. ' if ponder is false else 'Let me work this out. ' }}{% endif %}"""
SETTINGS = """
[engines.main]
kind = "scripted"
model = "demo/tokenizer"

[families.clerk]
thinking = ["Let me work this out. ", "Here is what I found. "]
modes = { think = { ponder = true }, no_think = { ponder = false } }
closing = "Here is what I found. "
wrap_up = " Time is short. "

[families.clerk.tools]
open = "I have to ask: ["
call = "$name($arguments)"
close = "] Then I go on."
arguments = "python"
separator = ", "
one_block = true

[routes.main]
engine = "main"
family = "clerk"
mode = "think"
"""
USER = {"role": "user", "content": "How is Oslo?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
CALLS = "I have to ask: [look_up(city='Os\"lo (]', days=3), look_up(city='Rome')] Then I go on."
THOUGHT = "Two and three. Here is"


def asked(reply: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client reads, streamed and whole alike, and the whole body."""
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer", chat_template=TEMPLATE)
    engine = ScriptedEngine(tokenizer, [reply], name="main", tokens_per_step=2)
    app = create_app(parse_config(SETTINGS, ROOT), {"main": engine})
    body = {"model": "main", "messages": [USER], **fields}

    async def both() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            path = "/v1/chat/completions"
            return await client.post(path, json=body), await client.post(path, json={**body, "stream": True})

    whole, stream = asyncio.run(both())
    assert whole.status_code == 200, whole.text
    message = whole.json()["choices"][0]["message"]
    got = {
        "reasoning": message.get("reasoning") or "",
        "content": message["content"] or "",
        "calls": [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", [])],
    }
    assert streamed(stream.text) == got
    return got, whole.json()


def test_it_thinks_and_answers() -> None:
    got, _ = asked(f"{THOUGHT} it. Here is what I found. It is 5. Let me")
    assert got == {"reasoning": f"{THOUGHT} it. ", "content": "It is 5. Let me", "calls": []}


def test_it_answers_at_once() -> None:
    got, _ = asked("It is 5.", reasoning_effort="none")
    assert got == {"reasoning": "", "content": "It is 5.", "calls": []}


def test_it_calls_tools() -> None:
    got, _ = asked(f"I ask. Here is what I found. {CALLS}", tools=[TOOL])
    assert (got["reasoning"], got["content"]) == ("I ask. ", "")
    arguments = [(name, json.loads(text)) for name, text in got["calls"]]
    assert arguments == [("look_up", {"city": 'Os"lo (]', "days": 3}), ("look_up", {"city": "Rome"})]


@pytest.mark.parametrize("budget", [1, 5, 17])
def test_a_budget_holds_to_the_token(budget: int) -> None:
    got, body = asked(f"{THOUGHT} so on, and on, and on, and on, and on.", thinking_budget=budget)
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == budget
    assert body["choices"][0]["reasond"]["cut"]
    assert THOUGHT.startswith(got["reasoning"][:4])
