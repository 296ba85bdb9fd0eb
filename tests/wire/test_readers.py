"""What the users of five clients see of our replies: thinking in its box, the answer below, each once."""

import pytest

from tests.wire.readers import READERS, WHOLE_READERS, Shown, librechat, litellm, lobechat
from tests.wire.served import ANSWER, DIRECT, THINKING, THOUGHT, ask, chat_body, record

BOTH, ANSWER_ONLY = Shown(THOUGHT, ANSWER), Shown("", ANSWER)

# name, what the model writes, fields of the request, what is to be seen
STREAMS = [
    ("thinking", THINKING, {}, BOTH),
    ("direct", DIRECT, {}, ANSWER_ONLY),
    ("with usage", THINKING, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, BOTH),
    ("with log-probabilities of tags", THINKING, {"logprobs": True, "top_logprobs": 2}, BOTH),
    ("with token ids", THINKING, {"return_token_ids": True}, BOTH),
    ("direct with token ids", DIRECT, {"return_token_ids": True}, ANSWER_ONLY),
    ("forced thinking", THINKING.removeprefix("<think>"), {"reasoning_effort": "high"}, BOTH),
    ("thinking not shown", THINKING, {"include_reasoning": False}, ANSWER_ONLY),
    ("stop string", THINKING, {"stop": ". yes"}, Shown(THOUGHT, "it is 4")),
    ("no answer", f"<think>{THOUGHT}</think>", {}, Shown(THOUGHT, "")),
    ("newlines around the tags", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", {}, Shown(THOUGHT + "\n", ANSWER)),
    ("a closing tag that is text", "<no_think>it is 4</think>. yes</no_think>", {}, Shown("", "it is 4</think>. yes")),
    ("characters of several tokens", "<think>ß 思考 🤔</think>né 是 4 ✅", {}, Shown("ß 思考 🤔", "né 是 4 ✅")),
]


@pytest.mark.parametrize(("written", "fields", "seen"), [case[1:] for case in STREAMS], ids=[c[0] for c in STREAMS])
def test_every_client_shows_a_recorded_stream_as_it_was_meant(serve, written, fields, seen):
    stream = record(serve([written]).url, chat_body(**fields))
    chunks = [event.data for event in stream.events]
    expected = {read.__name__: seen for read in READERS}
    if "</think>" in seen.answer:  # LobeChat takes it out of every answer
        expected["lobechat"] = Shown(seen.thinking, seen.answer.replace("</think>", ""))
    assert {read.__name__: read(chunks) for read in READERS} == expected


@pytest.mark.parametrize(("written", "seen"), [(THINKING, BOTH), (DIRECT, ANSWER_ONLY)])
def test_every_client_shows_a_whole_reply_as_it_was_meant(serve, written, seen):
    reply = ask(serve([written]).url, chat_body()).json()
    assert {read.__name__: read(reply) for read in WHOLE_READERS} == {read.__name__: seen for read in WHOLE_READERS}


def test_a_null_under_either_key_would_hide_thinking_from_someone():
    def chunk(delta):
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    assert lobechat([chunk({"reasoning": "why", "reasoning_content": None})]).thinking == ""
    assert litellm([chunk({"reasoning": None, "reasoning_content": "why"})]).thinking == ""
    assert librechat([chunk({"reasoning_content": "why", "content": "so"})]).thinking == ""
    for read in READERS:
        assert read([chunk({"reasoning": "why", "reasoning_content": "why"}), chunk({"content": "so"})]) == (
            "why",
            "so",
        )
