"""What servers send, read back: each case as one of them spells it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loadtest import LoadRequest
from loadtest.load.stream import events, record
from loadtest.records import HttpExchange, OutputEvent, RequestRecord

ASKED = LoadRequest("q", ())
USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "completion_tokens_details": {"reasoning_tokens": 3}}


def exchange(pieces: list[bytes], status: int = 200) -> HttpExchange:
    """Piece number n was read at n nanoseconds."""
    made = HttpExchange(0)
    made.status, made.pieces, made.times, made.end_ns = status, pieces, list(range(len(pieces))), len(pieces)
    return made


def chunk(delta: dict[str, Any], finish: str | None = None, **choice: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]
    return b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def read(pieces: list[bytes], status: int = 200, **request: Any) -> RequestRecord:
    return record(LoadRequest("q", (), **request), 0, exchange(pieces, status))


DONE = b"data: [DONE]\n\n"


def test_vllm_sends_reasoning_token_ids_and_usage_last() -> None:
    found = read(
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning": "so "}, token_ids=[1, 2]),
            chunk({"reasoning": "4"}, token_ids=[3]),
            chunk({"content": "4"}, token_ids=[5]),
            chunk({}, "stop", token_ids=[7]),
            data({"choices": [], "usage": USAGE}),
            DONE,
        ]
    )
    assert found.error is None and found.exact_tokens
    assert found.events == (
        OutputEvent(1, "reasoning", 2),
        OutputEvent(2, "reasoning", 1),
        OutputEvent(3, "answer", 1),
        OutputEvent(4, "silent", 1),
    )
    assert (found.reasoning, found.answer, found.finish_reason) == ("so 4", "4", "stop")
    assert (found.prompt_tokens, found.output_tokens, found.thinking_tokens) == (5, 6, 3)
    assert (found.first_ns(), found.first_ns("reasoning"), found.first_ns("answer")) == (1, 1, 3)


def test_llama_cpp_and_sglang_send_reasoning_content_and_no_ids() -> None:
    pieces = [chunk({"reasoning_content": "a"}), chunk({"reasoning_content": None, "content": "b"}), chunk({}, "stop")]
    found = read([*pieces, DONE])
    assert found.events == (OutputEvent(0, "reasoning", 1), OutputEvent(1, "answer", 1))
    assert not found.exact_tokens
    assert (found.output_tokens, found.thinking_tokens) == (2, 1)  # counted, for want of usage


def test_reasond_sends_both_names_of_reasoning_and_its_decision_first_and_last() -> None:
    first = {
        "choices": [{"index": 0, "delta": {"role": "assistant"}}],
        "reasond": {"mode": "think", "chosen_by": "model"},
    }
    last = {"choices": [], "usage": USAGE, "reasond": {"budget": {"requested": 8, "used": 3}, "cut": None}}
    both = chunk({"reasoning": "x", "reasoning_content": "x"})
    found = read([data(first), both, chunk({"content": "y"}, "stop"), data(last), DONE])
    assert found.reasoning == "x"
    assert found.decision == {
        "mode": "think",
        "chosen_by": "model",
        "budget": {"requested": 8, "used": 3},
        "cut": None,
    }


def test_one_chunk_with_the_end_of_thinking_and_the_start_of_the_answer_counts_as_both() -> None:
    found = read([chunk({"reasoning": "a", "content": "b"}, token_ids=[1, 2, 3]), chunk({}, "stop")])
    assert found.events == (OutputEvent(0, "reasoning", 2), OutputEvent(0, "answer", 1))


def test_a_tool_call_is_an_answer() -> None:
    found = read([chunk({"tool_calls": [{"index": 0}]}), chunk({}, "tool_calls")])
    assert found.events == (OutputEvent(0, "answer", 1),) and found.finish_reason == "tool_calls"


def test_a_whole_reply_is_read_too() -> None:
    message = {"role": "assistant", "reasoning": "hm", "content": "4"}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    found = read([json.dumps(body).encode()[:20], json.dumps(body).encode()[20:]], stream=False)
    assert (found.error, found.reasoning, found.answer, found.output_tokens) == (None, "hm", "4", 6)
    assert found.events == ()


def test_errors_have_kinds() -> None:
    assert read([b'{"error": "full"}'], 429).error == "http_429"
    assert read([chunk({"content": "a"}), data({"error": {"message": "died"}})]).error == "stream_error"
    assert read([chunk({"content": "a"})]).error == "truncated"
    assert read([b"data: {oops\n\n"]).error == "unreadable"
    assert read([b"<html>"], stream=False).error == "unreadable"
    assert read([b"[1]"], stream=False).error == "unreadable"


def test_what_broke_is_kept_beside_its_kind() -> None:
    assert "full" in read([b'{"error": "full"}'], 429).error_detail
    assert "died" in read([data({"error": {"message": "died"}})]).error_detail


def test_a_connection_that_ends_after_the_last_event_ended_the_reply() -> None:
    made = exchange([chunk({"content": "a"}, "stop"), DONE])
    made.error = "disconnect"
    assert record(ASKED, 0, made).error is None
    made.pieces, made.times = made.pieces[:1], made.times[:1]
    assert record(ASKED, 0, made).error == "disconnect"


@given(st.data(), st.booleans())
def test_events_are_the_same_wherever_the_bytes_are_split(draw: st.DataObject, crlf: bool) -> None:
    end = b"\r\n" if crlf else b"\n"
    payloads = [b'{"a": "\xc3\xa9"}', b"[DONE]", b"{}"]
    whole = b": comment" + end + b"".join(b"event: x" + end + b"data: " + one + end + end for one in payloads)
    cuts = draw.draw(st.sets(st.integers(1, len(whole) - 1)).map(sorted))
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [one for _, one in events(list(range(len(pieces))), pieces)] == payloads


def test_an_event_has_the_time_of_the_read_that_ended_its_line() -> None:
    assert list(events([10, 20, 30], [b"data: a\n\nda", b"ta: b", b"\n\n"])) == [(10, b"a"), (30, b"b")]


def test_a_last_line_without_an_end_still_counts() -> None:
    assert list(events([10], [b"data: a"])) == [(10, b"a")]
