"""Raw completions on the wire: what the model writes, tags and all."""

import json

import httpx
import pytest

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedReply
from tests.wire.served import ask, record, served

PATH = "/v1/completions"
TEXT = "one two. three"


def body(**fields):
    return {"model": "demo", "prompt": "count", "max_tokens": 50, **fields}


@pytest.fixture
def server(serve):
    return serve([TEXT])


def joined(stream, index=0):
    choices = [choice for event in stream.events for choice in event.data["choices"]]
    return "".join(choice["text"] for choice in choices if choice["index"] == index)


def test_a_completion_is_one_object(server, tokenizer):
    answer = ask(server.url, body(), PATH)
    reply = answer.json()
    prompt, completion = len(tokenizer.encode("count")), len(tokenizer.encode(TEXT)) + 1
    assert reply == {
        "id": f"cmpl-{answer.headers['x-request-id']}",
        "object": "text_completion",
        "created": reply["created"],
        "model": "demo",
        "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop", "stop_reason": None}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def test_a_streamed_completion_is_text_then_an_end(server):
    stream = record(server.url, body(), PATH)
    for event in stream.events:
        assert event.data.keys() == {"id", "object", "created", "model", "choices"}
        assert event.data["object"] == "text_completion"
        assert event.data["choices"][0].keys() == {"index", "text", "logprobs", "finish_reason", "stop_reason"}
    finishes = [event.data["choices"][0]["finish_reason"] for event in stream.events]
    assert finishes == [None] * (len(finishes) - 1) + ["stop"]
    assert joined(stream) == TEXT
    assert stream.done
    assert stream.headers["content-type"].startswith("text/event-stream")


def test_usage_comes_only_when_asked_for_in_a_last_event_without_choices(server):
    assert not any("usage" in event.data for event in record(server.url, body(), PATH).events)
    stream = record(server.url, body(stream_options={"include_usage": True}), PATH)
    assert [event.data["choices"] == [] for event in stream.events] == [False] * (len(stream.events) - 1) + [True]
    assert stream.events[-1].data["usage"] == ask(server.url, body(), PATH).json()["usage"]


def test_tags_are_part_of_a_raw_completion(serve):
    server = serve(["<think>a</think>b"])
    raw = ask(server.url, body(skip_special_tokens=False), PATH).json()["choices"][0]["text"]
    assert raw.startswith("<think>a</think>b")


def test_several_prompts_and_choices_are_numbered_prompt_by_prompt(serve):
    server = serve(lambda prompt, sampling: str(len(prompt.token_ids)))
    reply = ask(server.url, body(prompt=[[5], [5, 6, 7]], n=2), PATH).json()
    assert [(choice["index"], choice["text"]) for choice in reply["choices"]] == [
        (0, "1"),
        (1, "1"),
        (2, "3"),
        (3, "3"),
    ]
    assert reply["usage"]["prompt_tokens"] == 4
    stream = record(server.url, body(prompt=[[5], [5, 6, 7]], n=2), PATH)
    assert [joined(stream, index) for index in range(4)] == ["1", "1", "3", "3"]


def test_the_prompt_is_echoed_once(server):
    assert ask(server.url, body(echo=True), PATH).json()["choices"][0]["text"] == "count" + TEXT
    assert joined(record(server.url, body(echo=True), PATH)) == "count" + TEXT


def test_logprobs_have_this_apis_own_shape(server):
    parts = ask(server.url, body(logprobs=1), PATH).json()["choices"][0]["logprobs"]
    assert parts.keys() == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len({len(part) for part in parts.values()}) == 1
    assert "".join(parts["tokens"]).startswith(TEXT)
    for token, offset in zip(parts["tokens"][:-1], parts["text_offset"], strict=False):
        assert TEXT[offset:].startswith(token)
    events = record(server.url, body(logprobs=1), PATH).events
    streamed = [event.data["choices"][0]["logprobs"] for event in events]
    assert [token for part in streamed if part for token in part["tokens"]] == parts["tokens"]
    assert [offset for part in streamed if part for offset in part["text_offset"]] == parts["text_offset"]


def test_token_ids_come_when_asked_for(server, tokenizer):
    choice = ask(server.url, body(return_token_ids=True), PATH).json()["choices"][0]
    assert tokenizer.decode(choice["token_ids"]) == TEXT
    assert tokenizer.decode(choice["prompt_token_ids"]) == "count"
    stream = record(server.url, body(return_token_ids=True), PATH)
    assert [i for e in stream.events for i in e.data["choices"][0]["token_ids"]] == choice["token_ids"]


def test_a_stop_string_ends_the_text_and_is_named(server):
    choice = ask(server.url, body(stop=[". ", "x"]), PATH).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("one two", "stop", ". ")
    stream = record(server.url, body(stop=[". "]), PATH)
    assert joined(stream) == "one two"
    assert stream.events[-1].data["choices"][0]["stop_reason"] == ". "


def test_sixteen_tokens_are_the_default_here(serve):
    reply = ask(serve(["a b c d e f g h i j k l m n o p q r s t"]).url, {"model": "demo", "prompt": "x"}, PATH).json()
    assert reply["usage"]["completion_tokens"] == 16
    assert reply["choices"][0]["finish_reason"] == "length"


def test_an_error_behind_the_first_byte_is_an_event(serve):
    stream = record(serve([ScriptedReply("so far", error=EngineDead("gone"))]).url, body(), PATH)
    assert stream.events[-1].data["error"]["code"] == "engine_dead"
    texts = [event.data["choices"][0]["text"] for event in stream.events[:-1]]
    assert "".join(texts) == "so far"


CAPPED = """
[server]
port = 0

[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.demo]
engine = "demo"
family = "lhrm"
budgets = { cap = 6 }

[routes.reply]
engine = "demo"
family = "selfbudgeter"
budgets = { cap = 6 }

[routes.free]
engine = "demo"
family = "lhrm"

[routes.plain]
engine = "demo"
family = "plain"

[keys.environment-1]
budget_cap = 4
"""


@pytest.mark.parametrize("native", [True, False])
def test_a_cap_holds_or_the_route_is_refused(tokenizer, monkeypatch, native):
    monkeypatch.setenv("REASOND_API_KEYS", "one,two")
    thinking = ("<think>", "</think>") if native else None
    with served(tokenizer, ["1+1+1+1+1+1</think>so 8"], CAPPED, thinking=thinking) as server:
        for route, key, cap in (
            ("demo", "two", 6),
            ("demo", "one", 4),
            ("free", "one", 4),
            ("free", "two", None),
            ("plain", "one", None),
            ("reply", "two", 0),
        ):
            said = body(model=route, prompt="hi<think>")
            answer = httpx.post(server.url + PATH, json=said, headers={"x-api-key": key})
            if cap == 0 or (cap and not native):
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
            else:
                thought = answer.json()["choices"][0]["text"].partition("</think>")[0]
                assert thought == ("1+" * 6)[: cap or 11]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "said", "told", "finish"),
    [
        ("hi<think>", "1+1</think>so<think>1+1+1", "1+1</think>so", "length"),
        ("hi<think>", "1+1<think>1+1+1", "1+1", "length"),
        ("<think>1</think>hi", "<think>1+1</think>so<think>1", "<think>1+1</think>so", "length"),
        ("hi", "<think>1+1</think>so", "<think>1+1</think>so", "stop"),
    ],
)
def test_under_a_cap_thinking_is_opened_once(tokenizer, monkeypatch, stream, prompt, said, told, finish):
    monkeypatch.setenv("REASOND_API_KEYS", "one")
    with served(tokenizer, [said], CAPPED, thinking=("<think>", "</think>")) as server:
        answer = httpx.post(
            server.url + PATH,
            json=body(prompt=prompt, stream=stream, skip_special_tokens=False),
            headers={"x-api-key": "one"},
        )
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] or [answer.text]
        choices = [json.loads(line)["choices"][0] for line in lines]
        assert "".join(choice["text"] for choice in choices).removesuffix("<|im_end|>") == told
        assert choices[-1]["finish_reason"] == finish
        assert server.until_idle() == 0
