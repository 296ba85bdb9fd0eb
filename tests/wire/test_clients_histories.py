"""Histories as clients send them back, on every API: what a model reads of them, and what the record tells."""

from typing import Any

import pytest

from tests.wire.conversations import (
    AGAIN,
    IMAGE,
    NO_SYSTEM,
    ONLY_FIRST,
    SHOWS,
    THOUGHT,
    USER,
    called,
    chat,
    message,
    response,
)


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
def test_thinking_of_earlier_turns_is_read_under_every_name(asks, fields):
    seen = asks(*chat(USER, {"role": "assistant", "content": "4", **fields}, AGAIN))
    assert seen.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"
    assert seen.notes == []


def test_thinking_blocks_are_read_on_messages(asks):
    blocks = [{"type": "thinking", "thinking": "old", "signature": "x"}, {"type": "text", "text": "4"}]
    seen = asks(*message(USER, {"role": "assistant", "content": blocks}, AGAIN))
    assert seen.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"


@pytest.mark.parametrize(
    "item", [{"summary": [{"type": "summary_text", "text": "old"}]}, {"content": [{"text": "old"}]}]
)
def test_reasoning_items_are_read_on_responses(asks, item):
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4"}]}
    seen = asks(*response(USER, {"type": "reasoning", "id": "rs_1", "summary": [], **item}, said, AGAIN))
    assert seen.prompt == f"[user]hi[assistant]{THOUGHT}4[user]go on"


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
def test_thinking_that_another_server_sealed_is_left_out_and_told(asks, path, body):
    seen = asks(path, body)
    assert seen.prompt == "[user]hi[assistant]4[user]go on"
    assert seen.notes == ["some thinking of earlier turns is sealed by another server and was left out"]


def test_a_user_who_quotes_the_tags_stays_as_he_is(asks):
    seen = asks(
        *chat({"role": "user", "content": "<think>mine</think>?"}, {"role": "assistant", "content": "a <think>"}, AGAIN)
    )
    assert seen.prompt == "[user]<think>mine</think>?[assistant]a <think>[user]go on"


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


def test_leftovers_of_objects_pass(asks):
    turn = {"role": "assistant", "content": "4", **LEFTOVERS}
    call = {
        "id": "c",
        "type": "function",
        "index": 0,
        "extra_content": {"google": 1},
        "function": {"name": "write_file", "arguments": '{"a": 1}', "parsed_arguments": {"a": 1}},
    }
    cached = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    seen = asks(
        *chat(
            {"role": "user", "content": [cached]},
            turn,
            {**turn, "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        )
    )
    assert seen.prompt == "[user]hi[assistant]4[assistant]" + called("write_file", '"a": 1') + "[tool]done"
    assert seen.notes == []


@pytest.mark.parametrize("name", LEFTOVERS)
def test_each_leftover_passes_by_itself(asks, name):
    seen = asks(*chat(USER, {"role": "assistant", "content": "4", name: LEFTOVERS[name]}, AGAIN))
    assert seen.prompt == "[user]hi[assistant]4[user]go on"


def test_leftovers_of_items_pass(asks):
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
    seen = asks(*response(USER, turn, call, {"type": "function_call_output", "call_id": "c", "output": "r", "x": 1}))
    assert seen.prompt == f"[user]hi[assistant]4{called('f')}[tool]r"


@pytest.mark.parametrize(
    "turn", [{"role": "assistant", "content": None}, {"role": "assistant"}, {"role": "tool", "content": None}]
)
def test_an_empty_turn_is_an_empty_turn(asks, turn):
    assert asks(*chat(USER, turn, AGAIN)).prompt == f"[user]hi[{turn['role']}][user]go on"


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
def test_arguments_that_are_no_object_do_not_end_the_conversation(asks, arguments, shown):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c", "content": "r"}
    seen = asks(*chat(USER, {"role": "assistant", "content": None, "tool_calls": [call]}, result))
    assert seen.prompt == f"[user]hi[assistant]{called('f', shown)}[tool]r"


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
def test_an_image_is_a_line_of_text_and_told(asks, path, body, prompt):
    seen = asks(path, body)
    assert seen.prompt == prompt
    assert seen.notes == ["image parts were left out: this model reads text only"]


WORDS = [{"type": "text", "text": "words"}]
CITED = {"citations": {"enabled": True}, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}, "words"),
        ({"type": "document", "source": {"type": "content", "content": WORDS}, "title": "T", **CITED}, "T\nwords"),
        ({"type": "document", "source": {"type": "content", "content": "words"}, "title": None}, "words"),
        ({"type": "search_result", "source": "http://a", "title": "T", "content": WORDS, **CITED}, "T\nwords"),
        ({"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": WORDS}, "words"),
    ],
)
def test_a_document_that_is_text_is_read(asks, part, shown):
    for content in ([part], [{"type": "tool_result", "tool_use_id": "t", "content": [part]}]):
        seen = asks(*message({"role": "user", "content": content}))
        assert seen.prompt.partition("]")[2] == shown
        assert seen.notes == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}, **CITED},
        {"type": "document", "source": {"type": "file", "file_id": "f"}, "title": "T", "context": "c"},
        {"type": "document", "source": {"type": "content", "content": [*WORDS, {"type": "image", "source": {}}]}},
        {"type": "container_upload", "file_id": "f"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result", "url": "u"}]},
    ],
)
def test_what_is_no_text_is_a_line_that_says_so(asks, part):
    kind = part["type"]
    seen = asks(*message({"role": "user", "content": [part, WORDS[0]]}))
    assert seen.prompt == f"[user][{kind}: this model reads text only]\nwords"
    assert seen.notes == [f"{kind} parts were left out: this model reads text only"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        message(
            USER,
            {"role": "assistant", "content": [TOOL_USE, {**TOOL_USE, "id": "u", "name": "find", "input": '{"a": 1}'}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "u", "content": WORDS, "is_error": True},
                    {"type": "text", "text": "go on"},
                ],
            },
        ),
        response(
            USER,
            {"type": "function_call", "call_id": "t", "name": "Read", "arguments": "{}"},
            {"type": "function_call", "call_id": "u", "name": "find", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "t", "output": "1"},
            {"type": "function_call_output", "call_id": "u", "output": [{"type": "input_text", "text": "words"}]},
            AGAIN,
        ),
    ],
)
def test_calls_side_by_side_are_one_turn_and_their_results_one_each(asks, path, body):
    calls = called("Read") + called("find", '"a": 1')
    assert asks(path, body).prompt == f"[user]hi[assistant]{calls}[tool]1[tool]words[user]go on"


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
def test_system_turns_are_one_in_front_where_the_template_wants_that(asks, path, body, refuses, prompt):
    assert asks(path, body, refuses + SHOWS).prompt == prompt


def test_system_turns_stay_where_the_template_takes_them_anywhere(asks):
    assert asks(*chat(SYSTEM, USER, LATE, AGAIN)).prompt == "[system]A[user]hi[system]B[user]go on"


def test_a_template_that_drops_late_system_turns_gets_them_in_front(asks):
    drops = "{%- if messages[0].role == 'system' %}[system]{{ messages[0].content }}{% endif %}"
    drops += "{%- for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    drops += "{%- if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    assert asks(*chat(USER, LATE, AGAIN), drops).prompt == "[system]B[user]hi[user]go on"


def test_items_that_nobody_reads_are_left_out_and_told(asks):
    items = [{"type": kind, "id": "x", "encrypted_content": "y"} for kind in ("compaction", "web_search_call")]
    seen = asks(*response(USER, *items, AGAIN))
    assert seen.prompt == "[user]hi[user]go on"
    assert seen.notes == [
        "input items of type compaction were left out",
        "input items of type web_search_call were left out",
    ]
