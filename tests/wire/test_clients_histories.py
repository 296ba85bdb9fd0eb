"""Histories as clients send them back, on every API: what a model reads of them, and what the record tells."""

import json
from functools import cache
from typing import Any

import httpx
import pytest

from models.text.tokenizer import HubTokenizer
from tests.wire.served import ROOT, served

CONFIG = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
[routes.q]
engine = "demo"
family = "qwen3"
mode = "think"
"""
SHOWS = """
{%- for message in messages %}{{ '[' + message.role + ']' }}
{%- if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": {' }}
{%- for key, value in call.function.arguments | items %}{{ key | tojson + ': ' + value | tojson }}
{%- if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ '}}\\n</tool_call>' }}
{%- endfor %}{% endfor %}[assistant]"""
"""A template that shows thinking, and walks through the arguments of calls."""
THOUGHT = "<think>\nold\n</think>\n\n"
NO_SYSTEM = "{% for m in messages if m.role == 'system' %}{{ raise_exception('none') }}{% endfor %}"
ONLY_FIRST = "{% for m in messages[1:] if m.role == 'system' %}{{ raise_exception('late') }}{% endfor %}"
USER = {"role": "user", "content": "hi"}
AGAIN = {"role": "user", "content": "go on"}


def called(name: str, arguments: str = "") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{{arguments}}}}}\n</tool_call>'


IMAGE = "[image: this model reads text only]"


class Asked:
    """What the model was shown, and what the client was told."""

    def __init__(self, prompt: str, answer: httpx.Response) -> None:
        self.prompt = prompt
        self.status = answer.status_code
        self.text = answer.text
        if answer.headers["content-type"].startswith("text/event-stream"):
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            self.records = [record for event in events for record in _records(event)]
        else:
            self.records = list(_records(answer.json()))

    @property
    def notes(self) -> list[str]:
        assert self.status == 200, self.text
        return self.records[-1].get("notes", [])


def _records(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("reasond"), dict):
            yield value["reasond"]
        for each in value.values():
            yield from _records(each)
    elif isinstance(value, list):
        for each in value:
            yield from _records(each)


@cache
def tokenizer_with(template: str) -> HubTokenizer:
    return HubTokenizer(ROOT / "demo" / "tokenizer", chat_template=template)


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def ask(request, monkeypatch):
    """`ask(path, body, template)`: the request to a server whose model thinks and answers."""
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)

    def send(path: str, body: dict[str, Any], template: str = SHOWS, config: str = CONFIG) -> Asked:
        tokenizer = tokenizer_with(template)
        prompts: list[str] = []

        def script(prompt, sampling):
            prompts.append(tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
            return "so" if "</think>" in prompts[-1].rpartition("[assistant]")[2] else "hm</think>so"

        with served(tokenizer, script, config, context_length=8192) as server:
            answer = httpx.post(f"{server.url}{path}", json={"model": "q", **body, "stream": request.param})
        return Asked(prompts[0].rpartition("[assistant]<think>")[0] if prompts else "", answer)

    return send


def chat(*messages: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": list(messages), **fields}


def message(*messages: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"messages": list(messages), "max_tokens": 500, **fields}


def response(*items: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": list(items), **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "old"},
        {"reasoning": "old"},
        {"reasoning_content": None, "reasoning": "old"},
        {"thinking": "old"},
        {"thinking": {"content": "old"}},
        {"reasoning_text": "old"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "old", "signature": "x", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "old"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "old", "signature": None}]},
        {"content": [{"type": "thinking", "thinking": "old"}, {"type": "text", "text": "4"}]},
        {"content": [{"type": "reasoning", "text": "old"}, {"type": "text", "text": "4"}]},
        {"content": "<think>\nold\n</think>\n\n4"},
        {"content": " <think>old</think>4", "reasoning_content": ""},
    ],
)
def test_thinking_of_earlier_turns_is_read_under_every_name(ask, fields):
    asked = ask(*chat(USER, {"role": "assistant", "content": "4", **fields}, AGAIN))
    assert asked.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"
    assert asked.notes == []


def test_thinking_blocks_are_read_on_messages(ask):
    blocks = [{"type": "thinking", "thinking": "old", "signature": "x"}, {"type": "text", "text": "4"}]
    asked = ask(*message(USER, {"role": "assistant", "content": blocks}, AGAIN))
    assert asked.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"


@pytest.mark.parametrize(
    "item", [{"summary": [{"type": "summary_text", "text": "old"}]}, {"content": [{"text": "old"}]}]
)
def test_reasoning_items_are_read_on_responses(ask, item):
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4"}]}
    asked = ask(*response(USER, {"type": "reasoning", "id": "rs_1", "summary": [], **item}, said, AGAIN))
    assert asked.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"


def answered(*parts: Any, **fields: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "4"}] if parts else "4"
    return {"role": "assistant", "content": content, **fields}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat(USER, answered(reasoning_details=[{"type": "reasoning.encrypted", "data": "sealed"}]), AGAIN),
        message(USER, answered({"type": "redacted_thinking", "data": "x"}), AGAIN),
        message(USER, answered({"type": "thinking", "thinking": "", "signature": "x"}), AGAIN),
        response(USER, {"type": "reasoning", "summary": [], "encrypted_content": "x"}, answered(), AGAIN),
    ],
)
def test_thinking_that_another_server_sealed_is_left_out_and_told(ask, path, body):
    asked = ask(path, body)
    assert asked.prompt == "[user]hi[assistant]4[user]go on"
    assert asked.notes == ["some thinking of earlier turns is sealed by another server and was left out"]


def test_a_user_who_quotes_the_tags_stays_as_he_is(ask):
    asked = ask(
        *chat({"role": "user", "content": "<think>mine</think>?"}, {"role": "assistant", "content": "a <think>"}, AGAIN)
    )
    assert asked.prompt == "[user]<think>mine</think>?[assistant]a <think>[user]go on"


LEFTOVERS = {
    "id": "msg_1",
    "timestamp": 5,
    "thinking_blocks": None,
    "provider_specific_fields": {"reasoning": "x"},
    "reasoning_text": None,
    "reasoning_opaque": "x",
    "prefix": True,
    "images": [],
    "citations": None,
    "usage": {"total_tokens": 5},
    "model": "m",
    "created": 5,
    "finish_reason": "stop",
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "parsed": {"sum": 4},
    "name": "assistant",
}


def test_leftovers_of_objects_pass(ask):
    turn = {"role": "assistant", "content": "4", **LEFTOVERS}
    call = {
        "id": "c",
        "type": "function",
        "index": 0,
        "extra_content": {"google": 1},
        "function": {"name": "write_file", "arguments": '{"a": 1}', "parsed_arguments": {"a": 1}},
    }
    cached = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    asked = ask(
        *chat(
            {"role": "user", "content": [cached]},
            turn,
            {**turn, "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        )
    )
    assert asked.prompt == "[user]hi[assistant]4[assistant]" + called("write_file", '"a": 1') + "[tool]done"
    assert asked.notes == []


@pytest.mark.parametrize("name", LEFTOVERS)
def test_each_leftover_passes_by_itself(ask, name):
    asked = ask(*chat(USER, {"role": "assistant", "content": "4", name: LEFTOVERS[name]}, AGAIN))
    assert asked.prompt == "[user]hi[assistant]4[user]go on"


def test_leftovers_of_items_pass(ask):
    said = {"type": "output_text", "text": "4", "annotations": [], "logprobs": [], "parsed": {"sum": 4}}
    turn = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "phase": None,
        "content": [said],
    }
    call = {
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "parsed_arguments": {},
        "status": "x",
    }
    asked = ask(*response(USER, turn, call, {"type": "function_call_output", "call_id": "c", "output": "r", "x": 1}))
    assert asked.prompt == f"[user]hi[assistant]4{called('f')}[tool]r"


@pytest.mark.parametrize(
    "turn", [{"role": "assistant", "content": None}, {"role": "assistant"}, {"role": "tool", "content": None}]
)
def test_an_empty_turn_is_an_empty_turn(ask, turn):
    assert ask(*chat(USER, turn, AGAIN)).prompt == f"[user]hi[{turn['role']}][user]go on"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"a": "lon', r'"arguments": "{\"a\": \"lon"'),
        ("[]", ""),
        ("null", ""),
        ("", ""),
        (None, ""),
        ('"x"', r'"arguments": "\"x\""'),
        ('{"a": 1}', '"a": 1'),
        ({"a": 1}, '"a": 1'),
    ],
)
def test_arguments_that_are_no_object_do_not_end_the_conversation(ask, arguments, shown):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c", "content": "r"}
    asked = ask(*chat(USER, {"role": "assistant", "content": None, "tool_calls": [call]}, result))
    assert asked.prompt == f"[user]hi[assistant]{called('f', shown)}[tool]r"


PIXELS = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
TOOL_USE = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}


@pytest.mark.parametrize(
    ("path", "body", "prompt"),
    [
        (
            *chat(
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}],
                }
            ),
            f"[user]{IMAGE}\n?",
        ),
        (
            *message(
                USER,
                {"role": "assistant", "content": [TOOL_USE]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": PIXELS}]}
                    ],
                },
            ),
            f"[user]hi[assistant]{called('Read')}[tool]{IMAGE}",
        ),
        (
            *response(
                USER,
                {"type": "function_call", "call_id": "c", "name": "view_image", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
                },
            ),
            f"[user]hi[assistant]{called('view_image')}[tool]{IMAGE}",
        ),
    ],
)
def test_an_image_is_a_line_of_text_and_told(ask, path, body, prompt):
    asked = ask(path, body)
    assert asked.prompt == prompt
    assert asked.notes == ["image parts were left out: this model reads text only"]


def test_a_document_that_is_text_is_read(ask):
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}
    assert ask(*message({"role": "user", "content": [document]})).prompt == "[user]words"


SYSTEM = {"role": "system", "content": "A"}
LATE = {"role": "system", "content": "B"}
SPOKEN = {"role": "assistant", "content": "b"}
A, B = {"type": "text", "text": "A"}, {"type": "text", "text": "B"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat(SYSTEM, USER, SPOKEN, LATE, AGAIN),
        chat(SYSTEM, LATE, USER, SPOKEN, AGAIN),
        chat({**SYSTEM, "role": "developer"}, USER, SPOKEN, LATE, AGAIN),
        message(USER, SPOKEN, LATE, AGAIN, system="A"),
        message(USER, SPOKEN, {"role": "system", "content": [B]}, AGAIN, system=[A]),
        response(USER, SPOKEN, {"role": "developer", "content": "B"}, AGAIN, instructions="A"),
        response({"role": "developer", "content": "A"}, {"role": "developer", "content": "B"}, USER, SPOKEN, AGAIN),
    ],
)
@pytest.mark.parametrize(
    ("refuses", "prompt"),
    [
        (ONLY_FIRST, "[system]A\n\nB[user]hi[assistant]b[user]go on"),
        (NO_SYSTEM, "[user]A\n\nB\n\nhi[assistant]b[user]go on"),
    ],
)
def test_system_turns_are_one_in_front_where_the_template_wants_that(ask, path, body, refuses, prompt):
    assert ask(path, body, refuses + SHOWS).prompt == prompt


def test_system_turns_stay_where_the_template_takes_them_anywhere(ask):
    assert ask(*chat(SYSTEM, USER, LATE, AGAIN)).prompt == "[system]A[user]hi[system]B[user]go on"


def test_a_template_that_drops_late_system_turns_gets_them_in_front(ask):
    drops = "{%- if messages[0].role == 'system' %}[system]{{ messages[0].content }}{% endif %}"
    drops += "{%- for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    assert ask(*chat(USER, LATE, AGAIN), drops).prompt == "[system]B[user]hi[user]go on"


def test_items_that_nobody_reads_are_left_out_and_told(ask):
    items = [{"type": kind, "id": "x", "encrypted_content": "y"} for kind in ("compaction", "web_search_call")]
    asked = ask(*response(USER, *items, AGAIN))
    assert asked.prompt == "[user]hi[user]go on"
    assert asked.notes == [
        "input items of type compaction were left out",
        "input items of type web_search_call were left out",
    ]
