"""Streamed chat completions, event by event."""

import socket
from itertools import pairwise

import httpx
import orjson
import pytest

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedReply
from tests.wire.served import ANSWER, DIRECT, SETTINGS, THINKING, THOUGHT, ask, chat_body, record, served
from tests.wire.test_tools import Model

pytestmark = pytest.mark.every_step

RECORD = {"mode": "think", "chosen_by": "model"}


def test_the_events_of_a_thinking_reply_are_role_thinking_answer_end(thinking):
    stream = record(thinking.url, chat_body())
    first, *middle, last = [event.data for event in stream.events]
    head = {key: first[key] for key in ("id", "created")}
    head |= {"object": "chat.completion.chunk", "model": "demo"}

    def chunk(delta, finish=None):
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    assert first == {**head, "choices": [chunk({"role": "assistant", "content": ""})], "reasond": RECORD}
    for event in middle:
        (key, *more) = event["choices"][0]["delta"]
        text = event["choices"][0]["delta"][key]
        both = {"reasoning": text, "reasoning_content": text}
        assert event == {**head, "choices": [chunk(both if more else {"content": text})]}
    assert last == {**head, "choices": [{**chunk({}, "stop"), "stop_reason": None}], "reasond": RECORD}
    assert stream.done
    assert (stream.joined("reasoning"), stream.joined("content")) == (THOUGHT, ANSWER)
    assert head["id"] == f"chatcmpl-{stream.headers['x-request-id']}"


def test_reasoning_keys_hold_the_same_text_or_are_absent_and_never_null(thinking, direct):
    thought = record(thinking.url, chat_body(stream_options={"include_usage": True}))
    assert [event.delta["reasoning"] for event in thought.events if "reasoning" in event.delta]
    for event in [*thought.events, *record(direct.url, chat_body()).events]:
        assert event.delta.get("reasoning") == event.delta.get("reasoning_content")
        assert ("reasoning" in event.delta) == ("reasoning_content" in event.delta)
        assert None not in event.delta.values()
        assert not {"reasoning", "content"} <= event.delta.keys()
    assert not any("reasoning" in event.delta for event in record(direct.url, chat_body()).events)


def test_usage_comes_only_when_asked_for_in_a_last_event_without_choices(thinking, tokenizer):
    assert not any("usage" in event.data for event in record(thinking.url, chat_body()).events)
    stream = record(thinking.url, chat_body(stream_options={"include_usage": True}))
    *before, last = [event.data for event in stream.events]
    assert not any("usage" in event for event in before)
    thought, answer = (len(tokenizer.encode(text)) for text in (THOUGHT, ANSWER))
    prompt = last["usage"]["prompt_tokens"]
    completion = thought + answer + 3  # two tags and the end of sequence are charged for too
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": thought},
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_continuous_usage_grows_with_every_token(thinking):
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = record(thinking.url, chat_body(stream_options=options))
    counts = [event.data["usage"]["completion_tokens"] for event in stream.events if "usage" in event.data]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(stream.events) - 2  # all but the first and the last of a choice


def test_the_decision_stands_in_the_first_and_last_event_of_a_choice_and_in_the_headers(thinking, direct):
    for url, mode in ((thinking.url, "think"), (direct.url, "no_think")):
        stream = record(url, chat_body())
        said = [i for i, event in enumerate(stream.events) if "reasond" in event.data]
        assert said == [0, len(stream.events) - 1]
        assert [stream.events[i].data["reasond"]["mode"] for i in said] == [mode, mode]
        assert stream.headers["x-reasond-mode"] == mode
        assert stream.headers["x-reasond-chosen-by"] == "model"


def test_a_threshold_tells_the_probability_it_saw_before_the_first_word(serve, tokenizer):
    think, direct = tokenizer.control_id("<think>"), tokenizer.control_id("<no_think>")
    replies = [ScriptedReply("<think>", {think: -0.2, direct: -1.7}), f"{THOUGHT}</think>{ANSWER}"]
    stream = record(serve(replies).url, chat_body(model="careful"))
    told = {"p_think": 0.817574, "threshold": 0.5, "decision_tokens": 1}
    assert stream.events[0].data["reasond"] == {"mode": "think", "chosen_by": "threshold", **told}
    assert stream.headers["x-reasond-chosen-by"] == "threshold"
    assert stream.joined("reasoning_content") == THOUGHT


def test_a_mode_that_the_client_asked_for_is_forced_and_named(serve):
    stream = record(serve([f"{ANSWER}</no_think>"]).url, chat_body(reasoning_effort="none"))
    assert stream.events[0].data["reasond"] == {"mode": "no_think", "chosen_by": "client"}
    assert (stream.joined("reasoning"), stream.joined("content")) == ("", ANSWER)


def test_every_choice_has_its_own_role_decision_and_end(serve):
    stream = record(serve([THINKING, DIRECT]).url, chat_body(n=2, stream_options={"include_usage": True}))
    assert (stream.joined("reasoning", 0), stream.joined("content", 0)) == (THOUGHT, ANSWER)
    assert (stream.joined("reasoning", 1), stream.joined("content", 1)) == ("", ANSWER)
    for index, mode in ((0, "think"), (1, "no_think")):
        own = [event.data for event in stream.events if [c["index"] for c in event.data["choices"]] == [index]]
        assert own[0]["choices"][0]["delta"]["role"] == "assistant"
        assert own[0]["reasond"]["mode"] == own[-1]["reasond"]["mode"] == mode
        assert [event["choices"][0]["finish_reason"] for event in own] == [None] * (len(own) - 1) + ["stop"]
    assert stream.events[-1].data["choices"] == []
    assert stream.done


def test_logprobs_go_with_the_tokens_of_each_event(thinking, tokenizer):
    stream = record(thinking.url, chat_body(logprobs=True, top_logprobs=2))
    choices = [event.data["choices"][0] for event in stream.events]
    items = [item for choice in choices if choice["logprobs"] for item in choice["logprobs"]["content"]]
    assert "".join(item["token"] for item in items).startswith(THINKING)
    for item in items:
        assert item.keys() == {"token", "logprob", "bytes", "top_logprobs"}
        assert bytes(item["bytes"]).decode() == item["token"]
        assert item["logprob"] <= 0
        assert len(item["top_logprobs"]) == 2
        assert item["top_logprobs"][0].keys() == {"token", "logprob", "bytes"}
    assert not any(choice["logprobs"] for choice in (choices[0], choices[-1]))


def test_token_ids_come_when_asked_for_and_are_the_whole_reply(thinking, tokenizer):
    stream = record(thinking.url, chat_body(return_token_ids=True))
    ids = [token for event in stream.events for token in event.data["choices"][0].get("token_ids", ())]
    assert tokenizer.decode(ids, skip_special_tokens=False).startswith(THINKING)
    prompt = stream.events[0].data["prompt_token_ids"]
    assert "what is 2+2?" in tokenizer.decode(prompt)
    assert not any("prompt_token_ids" in event.data for event in stream.events[1:])
    plain = record(thinking.url, chat_body())
    assert not any("token_ids" in event.data["choices"][0] for event in plain.events)


def test_thinking_that_is_not_shown_is_still_decided_reported_and_charged_for(thinking):
    for hide in ({"include_reasoning": False}, {"reasoning": {"exclude": True}}):
        stream = record(thinking.url, chat_body(stream_options={"include_usage": True}, **hide))
        assert (stream.joined("reasoning"), stream.joined("reasoning_content")) == ("", "")
        assert stream.joined("content") == ANSWER
        assert stream.events[0].data["reasond"] == RECORD
        assert stream.events[-1].data["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


@pytest.mark.parametrize("budget", [None, 4])
def test_token_ids_of_hidden_thinking_are_told_and_nothing_that_spells_it(serve, tokenizer, budget):
    server = serve(Model(tokenizer, ANSWER, thought=THOUGHT))
    wish = {"return_token_ids": True, "logprobs": True, "include_reasoning": False, "thinking_budget": budget}
    whole = ask(server.url, chat_body(**wish)).json()
    stream = record(
        server.url, chat_body(**wish, stream_options={"include_usage": True, "continuous_usage_stats": True})
    )
    choices = [event.data["choices"][0] for event in stream.events if event.data["choices"]]
    ids = [token for choice in choices for token in choice.get("token_ids", ())]
    assert ids == whole["choices"][0]["token_ids"]
    assert len(ids) == whole["usage"]["completion_tokens"] == stream.events[-1].data["usage"]["completion_tokens"]
    forced = [token for choice in choices if choice.get("forced") for token in choice["token_ids"]]
    assert forced == [ids[at] for at in whole["choices"][0]["forced"]]
    assert stream.joined("content") == whole["choices"][0]["message"]["content"] == ANSWER
    assert not any("reasoning" in choice["delta"] for choice in choices)
    streamed = [item for choice in choices if choice["logprobs"] for item in choice["logprobs"]["content"]]
    told = whole["choices"][0]["logprobs"]["content"]
    assert [item["token"] for item in streamed] == [item["token"] for item in told]
    assert (
        "".join(item["token"] for item in told).replace("<think>", "").replace("<|im_end|>", "") == f"</think>{ANSWER}"
    )


def test_token_ids_of_a_declared_budget_are_told(tokenizer):
    settings = SETTINGS.replace('family = "lhrm"', 'family = "selfbudgeter"', 1)
    with served(tokenizer, ["<budget>12</budget><solution>so 8</solution>"], settings) as server:
        whole = ask(server.url, chat_body(return_token_ids=True)).json()
        stream = record(server.url, chat_body(return_token_ids=True))
    ids = [token for event in stream.events for token in event.data["choices"][0].get("token_ids", ())]
    assert ids == whole["choices"][0]["token_ids"]
    assert len(ids) == whole["usage"]["completion_tokens"]
    assert stream.joined("content") == "so 8"


def test_a_client_that_hides_thinking_hears_at_once_that_there_is_some(serve):
    server = serve([THINKING], token_delay=0.05)
    stream = record(server.url, chat_body(include_reasoning=False))
    assert stream.events[0].delta == {"role": "assistant", "content": ""}
    assert stream.events[0].seconds < stream.events[1].seconds / 2


def test_a_stop_string_ends_the_answer_once_and_is_text_in_the_thinking(thinking):
    stream = record(thinking.url, chat_body(stop=["."], stream_options={"include_usage": True}))
    assert (stream.joined("reasoning"), stream.joined("content")) == (THOUGHT, "it is 4")
    ends = [choice for event in stream.events for choice in event.data["choices"] if choice["finish_reason"]]
    assert [(end["finish_reason"], end["stop_reason"]) for end in ends] == [("stop", ".")]
    assert thinking.until_idle() == 0
    kept = record(thinking.url, chat_body(stop=".", include_stop_str_in_output=True))
    assert kept.joined("content") == "it is 4."


def test_the_length_limit_is_told_apart_from_an_end(thinking):
    stream = record(thinking.url, chat_body(max_completion_tokens=4))
    assert stream.events[-1].data["choices"][0]["finish_reason"] == "length"
    assert THOUGHT.startswith(stream.joined("reasoning"))
    assert stream.joined("content") == ""


def test_headers_say_what_the_body_is(thinking):
    headers = record(thinking.url, chat_body()).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    named = httpx.post(thinking.url + "/v1/chat/completions", json=chat_body(), headers={"x-request-id": "mine-1"})
    assert named.headers["x-request-id"] == "mine-1"
    assert named.json()["id"] == "chatcmpl-mine-1"


@pytest.mark.parametrize("api", ["chat/completions", "messages", "responses", "completions"])
def test_an_error_behind_the_first_byte_ends_the_stream_and_leaves_connection_and_log_alone(serve, caplog, api):
    server = serve([ScriptedReply("<think>so far", error=EngineDead("gone"))])
    asked = {"responses": {"input": "hi"}, "completions": {"prompt": "hi"}, "messages": {"max_tokens": 20}}.get(api, {})
    body = orjson.dumps({**(chat_body() if api in ("chat/completions", "messages") else {"model": "demo"}), **asked})
    body = body[:-1] + b',"stream":true}'
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/{api} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for _ in range(2):  # the second on the same connection
            connection.sendall(head.encode() + body)
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200")
            assert b"the model's engine is down" in received
    assert [entry.levelname for entry in caplog.records if entry.name != "server.app"] == []


def test_an_error_behind_the_first_byte_is_an_event(serve):
    server = serve([ScriptedReply("<think>so far", error=EngineDead("gone"))])
    stream = record(server.url, chat_body())
    assert stream.status == 200
    assert stream.joined("reasoning") == "so far"
    assert stream.events[-1].data == {
        "error": {"message": "the model's engine is down", "type": "server_error", "param": None, "code": "engine_dead"}
    }


@pytest.mark.parametrize("text", ["", "<think>"])
def test_an_error_before_the_first_byte_is_an_ordinary_http_error(serve, text):
    stream_body = chat_body(stream=True)
    answer = httpx.post(
        serve([ScriptedReply(text, error=EngineDead("gone"))]).url + "/v1/chat/completions",
        json=stream_body,
        timeout=30,
    )
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_dead"
    assert answer.headers["content-type"] == "application/json"


def test_thinking_arrives_as_it_is_generated(serve):
    delay = 0.04
    server = serve([THINKING], first_token_delay=delay, token_delay=delay)
    stream = record(server.url, chat_body())
    seconds = [event.seconds for event in stream.events if event.delta.get("reasoning") or event.delta.get("content")]
    print("seconds of the events:", " ".join(f"{at:.3f}" for at in seconds))
    gaps = [b - a for a, b in pairwise(seconds)]
    assert seconds[0] < seconds[-1] / 3
    assert sorted(gaps)[len(gaps) // 2] > delay / 2  # the median: a busy machine delivers a few late and together


def test_a_word_of_thinking_is_with_the_client_while_the_engine_still_thinks(serve):
    server = serve([THINKING], token_delay=0.02)
    with httpx.stream("POST", server.url + "/v1/chat/completions", json=chat_body(stream=True)) as answer:
        lines = (line for line in answer.iter_lines() if '"reasoning"' in line)
        next(lines)
        assert server.engine.running() == 1
        assert len(list(lines)) > 1
