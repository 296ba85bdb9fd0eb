"""Anthropic's `/v1/messages` through its official client, streamed and not."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from models.engines.base import EngineBusy, EngineDead
from models.engines.scripted import ScriptedReply
from server.apis.messages.encoder import signature
from server.apis.messages.seal import Seal
from tests.wire.served import ANSWER, DIRECT, SETTINGS, THINKING, THOUGHT, Served, served
from tests.wire.test_tools import ADD, ARGUMENTS, CALL, SCHEMA, Model

pytestmark = pytest.mark.every_step

FUNCTION: dict[str, Any] = ADD["function"]  # type: ignore[assignment]
TOOL = {
    "name": "add",
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
ASKED = {"model": "demo", "max_tokens": 200, "messages": [{"role": "user", "content": "what is 2+2?"}]}
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def client_of(server: Served, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, **{"api_key": "any", "max_retries": 0, **options})


@pytest.fixture
def client(thinking) -> Iterator[anthropic.Anthropic]:
    with client_of(thinking) as client:
        yield client


def test_a_message_is_read_with_its_thinking_and_usage(client, tokenizer):
    message = client.messages.create(**ASKED)
    thought, answer = message.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", THOUGHT, signature(THOUGHT))
    assert (answer.type, answer.text) == ("text", ANSWER)
    assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", "demo")
    assert message.usage.output_tokens_details.thinking_tokens == len(tokenizer.encode(THOUGHT))
    assert message.usage.input_tokens > 0
    assert message.reasond == {"mode": "think", "chosen_by": "model"}


def test_a_stream_has_anthropics_events_in_order(thinking):
    with httpx.stream("POST", f"{thinking.url}/v1/messages", json={**ASKED, "stream": True}) as answer:
        lines = list(answer.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == [event["type"] for event in data]
    for event in data:
        assert EVENTS.validate_python(event).type == event["type"]
    kinds = [event["delta"]["type"] if "delta" in event and "index" in event else event["type"] for event in data]
    assert list(dict.fromkeys(kinds)) == [
        "message_start",
        "content_block_start",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "text_delta",
        "message_delta",
        "message_stop",
    ]
    assert data[0]["message"]["content"] == []
    assert data[0]["message"]["usage"]["input_tokens"] > 0
    assert kinds.count("thinking_delta") > 3


def test_the_clients_own_accumulator_reads_the_stream(client):
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == ANSWER
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert (final.content[0].thinking, final.stop_reason) == (THOUGHT, "end_turn")
    assert final.content[0].signature == signature(THOUGHT)
    assert final.usage.output_tokens > 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_behind_the_thinking(serve, tokenizer, stream):
    with client_of(serve(Model(tokenizer, f"so: {CALL}"))) as client:
        if stream:
            with client.messages.stream(**ASKED, tools=[TOOL]) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**ASKED, tools=[TOOL])
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    use = message.content[2]
    assert (use.name, use.input) == ("add", json.loads(ARGUMENTS))
    assert use.id
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("choice", "kind", "single"),
    [
        ({"type": "any"}, "tags_with_separator", False),
        ({"type": "tool", "name": "add"}, "tags_with_separator", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "triggered_tags", True),
    ],
)
def test_a_choice_of_tools_is_in_the_grammar(serve, tokenizer, choice, kind, single):
    model = Model(tokenizer, CALL)
    with client_of(serve(model)) as client:
        client.messages.create(**ASKED, tools=[TOOL], tool_choice=choice)
    form = json.loads(model.grammars[-1].value)["format"]
    assert (form["type"], form["stop_after_first"]) == (kind, single)


def test_thinking_and_results_go_back_into_the_prompt(serve, tokenizer):
    model = Model(tokenizer, CALL)
    with client_of(serve(model)) as client:
        first = client.messages.create(**ASKED, tools=[TOOL], system="be short")
        model.answer = "2"
        result = {"type": "tool_result", "tool_use_id": first.content[-1].id, "content": "two"}
        turns = [
            *ASKED["messages"],
            {"role": "assistant", "content": [block.model_dump() for block in first.content]},
            {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
        ]
        second = client.messages.create(**{**ASKED, "messages": turns}, tools=[TOOL], system="be short")
    assert second.content[-1].text == "2"
    prompt = next(prompt for prompt in model.prompts if "two" in prompt)
    places = [prompt.find(text) for text in ("be short", "2+2", "<tool_call>", "<tool_response>two", "and?")]
    assert -1 not in places
    assert places == sorted(places)


def test_a_format_holds_for_the_answer(serve, tokenizer):
    model = Model(tokenizer, '{"sum": 2}')
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    with client_of(serve(model)) as client:
        message = client.messages.create(**ASKED, output_config=form)
    assert json.loads(message.content[-1].text) == {"sum": 2}
    assert [grammar and grammar.kind for grammar in model.grammars] == [None, "json"]


@pytest.mark.parametrize(
    "control",
    [
        {"thinking": {"type": "disabled"}},
        {"extra_body": {"reasond": {"mode": "no_think"}}},
        {"extra_body": {"reasoning_effort": "none"}},
    ],
)
def test_controls_are_those_of_chat(serve, control):
    with client_of(serve([f"{ANSWER}</no_think>"])) as client:
        message = client.messages.create(**ASKED, **control)
    assert message.reasond["mode"] == "no_think"
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_holds_and_the_limit_is_told(serve, tokenizer, stream):
    asked = {**ASKED, "max_tokens": 20, "thinking": {"type": "enabled", "budget_tokens": 6}}
    with client_of(serve(Model(tokenizer, "2 " * 50, thought="1 and 1 " * 20))) as client:
        if stream:
            with client.messages.stream(**asked) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**asked)
    assert message.usage.output_tokens_details.thinking_tokens == 6
    assert (message.usage.output_tokens, message.stop_reason) == (20, "max_tokens")


@pytest.mark.parametrize(("kind", "mode"), [("adaptive", "think"), ("disabled", "no_think")])
@pytest.mark.parametrize("stream", [False, True])
def test_the_effort_stands_beside_anthropics_own_ways_of_thinking(serve, tokenizer, kind, mode, stream):
    asked = {**ASKED, "thinking": {"type": kind}, "output_config": {"effort": "low"}}
    with client_of(serve(Model(tokenizer, ANSWER))) as client:
        if stream:
            with client.messages.stream(**asked) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**asked)
    assert message.reasond["mode"] == mode
    assert message.reasond.get("budget", {}).get("enforced") == (1024 if mode == "think" else None)
    assert message.content[-1].text == ANSWER


def test_a_number_of_more_than_64_bits_in_a_call_is_told(serve, tokenizer):
    call = CALL.replace('"a": 1', f'"a": {2**70}')
    with client_of(serve(Model(tokenizer, call))) as client:
        message = client.messages.create(**ASKED, tools=[TOOL])
    assert message.content[-1].input["a"] == float(2**70)


def test_a_stop_sequence_of_any_name_is_told_as_one(serve):
    with client_of(serve(["<no_think>it was cancelled and done</no_think>"])) as client:
        message = client.messages.create(**ASKED, stop_sequences=["cancelled"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "cancelled")


OMITTED = {"type": "adaptive", "display": "omitted"}


def test_hidden_thinking_is_no_block(client):
    message = client.messages.create(**ASKED, extra_body={"include_reasoning": False})
    assert [block.type for block in message.content] == ["text"]
    assert message.usage.output_tokens_details.thinking_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_omitted_thinking_is_an_empty_block_whose_signature_carries_it_sealed(serve, stream):
    key = "ab" * 32
    server = serve([THINKING], settings=SETTINGS.replace("[server]", f"[server]\nseal_key = '{key}'"))
    with client_of(server) as client:
        if stream:
            with client.messages.stream(**ASKED, thinking=OMITTED) as events:
                deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
                message = events.get_final_message()
            assert "thinking_delta" not in deltas
            assert deltas[0] == "signature_delta"
        else:
            message = client.messages.create(**ASKED, thinking=OMITTED)
    thought, answer = message.content
    assert (thought.type, thought.thinking, answer.text) == ("thinking", "", ANSWER)
    assert Seal(bytes.fromhex(key)).unseal(thought.signature) == THOUGHT


def test_a_block_of_text_has_no_citations_or_a_list_of_them(thinking):
    """Some clients take null for an invalid answer."""
    answer = httpx.post(f"{thinking.url}/v1/messages", json=ASKED).json()
    assert all(block.get("citations", []) is not None for block in answer["content"])
    assert answer["content"][-1] == {"type": "text", "text": ANSWER}


def test_a_stop_sequence_ends_the_answer_and_is_told(client):
    message = client.messages.create(**ASKED, stop_sequences=["4"])
    assert (message.content[-1].text, message.stop_reason, message.stop_sequence) == ("it is ", "stop_sequence", "4")


def test_input_tokens_are_counted_without_a_reply(client):
    asked = {**ASKED, "system": "be short", "tools": [TOOL], "thinking": {"type": "disabled"}}
    limit = asked.pop("max_tokens")
    counted = client.messages.count_tokens(**asked)
    used = client.messages.create(**asked, max_tokens=limit).usage
    assert counted.input_tokens == used.input_tokens


@pytest.mark.parametrize(
    ("arguments", "kind", "name"),
    [
        ({"model": "claude"}, anthropic.NotFoundError, "model"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": 7}]}]}, anthropic.BadRequestError, "content"),
        ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError, "temperature"),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "tool_choice"),
        ({"output_config": {"effort": "extreme"}}, anthropic.BadRequestError, "output_config.effort"),
        ({"thinking": {"type": "disabled", "budget_tokens": 9}}, anthropic.BadRequestError, "thinking.budget_tokens"),
        ({"extra_body": {"temprature": 1}}, anthropic.BadRequestError, "temprature"),
    ],
)
def test_a_refusal_is_anthropics_own_error(client, arguments, kind, name):
    with pytest.raises(kind) as caught:
        client.messages.create(**{**ASKED, **arguments})
    body = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert name in body["error"]["message"]
    assert body["request_id"]


def test_a_wrong_key_and_a_dead_engine_are_anthropics_errors_too(tokenizer, serve, monkeypatch):
    with client_of(serve([ScriptedReply("", error=EngineBusy("full"))])) as client:
        with pytest.raises(anthropic.APIStatusError) as busy:
            client.messages.create(**ASKED)
        assert busy.value.body["error"]["type"] == "overloaded_error"
    dying = client_of(serve([ScriptedReply("<think>so", error=EngineDead("gone"))]))
    with (
        dying,
        pytest.raises(anthropic.APIStatusError, match="engine is down"),
        dying.messages.stream(**ASKED) as stream,
    ):
        stream.until_done()
    monkeypatch.setenv("REASOND_API_KEYS", "right")
    with served(tokenizer, [DIRECT]) as server:
        with client_of(server) as stranger, pytest.raises(anthropic.AuthenticationError) as refused:
            stranger.messages.create(**ASKED)
        assert refused.value.body["error"]["type"] == "authentication_error"
        with client_of(server, api_key="right") as friend:
            assert friend.messages.create(**ASKED).content[-1].text == ANSWER


def test_closing_a_stream_leaves_nothing_in_the_engine(serve):
    server = serve([THINKING * 10], token_delay=0.02)
    with client_of(server) as client:
        with client.messages.stream(**ASKED) as stream:
            next(iter(stream))
            assert server.engine.running() == 1
        assert server.until_idle() == 0
