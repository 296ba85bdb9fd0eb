"""`/v1/responses` through the official `openai` client, streamed and not."""

import json
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedReply
from models.text.tokenizer import HubTokenizer
from tests.wire.served import ANSWER, DIRECT, ROOT, SETTINGS, THINKING, THOUGHT, served
from tests.wire.test_openai_client import client_of
from tests.wire.test_tools import ADD, ARGUMENTS, CALL, SCHEMA, Model

pytestmark = pytest.mark.every_step

TOOL = {"type": "function", **ADD["function"], "strict": True}
FORMAT = {"format": {"type": "json_schema", "name": "sum", "schema": SCHEMA, "strict": True}}
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def client(thinking) -> Iterator[openai.OpenAI]:
    with client_of(thinking) as client:
        yield client


def test_a_response_is_read_with_its_reasoning_and_usage(client, tokenizer):
    reply = client.responses.create(model="demo", input="what is 2+2?")
    reasoning, message = reply.output
    assert (reasoning.type, reasoning.content[0].text, reasoning.status) == ("reasoning", THOUGHT, "completed")
    assert (message.role, message.content[0].text, reply.output_text) == ("assistant", ANSWER, ANSWER)
    assert (reply.status, reply.object, reply.error) == ("completed", "response", None)
    assert reply.usage.output_tokens_details.reasoning_tokens == len(tokenizer.encode(THOUGHT))
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    assert reply.reasond == {"mode": "think", "chosen_by": "model"}


def test_who_asks_for_a_summary_gets_the_thinking_as_one_too(client):
    asked = {"model": "demo", "input": "hi", "reasoning": {"summary": "auto"}}
    reasoning, _ = client.responses.create(**asked).output
    assert [part.text for part in reasoning.summary] == [part.text for part in reasoning.content] == [THOUGHT]
    events = list(client.responses.create(**asked, stream=True))
    told = [event for event in events if event.type.startswith("response.reasoning_summary")]
    assert list(dict.fromkeys(event.type for event in told)) == [
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    ]
    for event in told:
        assert EVENTS.validate_python(event.model_dump()).type == event.type
        assert (event.item_id, event.output_index, event.summary_index) == (told[0].item_id, 0, 0)
    assert told[0].part.text == ""
    assert "".join(event.delta for event in told if event.type.endswith("text.delta")) == THOUGHT
    assert told[-2].text == told[-1].part.text == THOUGHT
    added = next(event for event in events if event.type == "response.output_item.added")
    assert (added.item.summary, added.item.content) == ([], [])
    final = events[-1].response.output[0]
    assert (final.summary[0].text, final.content[0].text) == (THOUGHT, THOUGHT)


def test_a_stream_has_openais_events_in_order_with_consecutive_numbers(client):
    events = list(client.responses.create(model="demo", input="what is 2+2?", stream=True))
    kinds = [event.type for event in events]
    once = list(dict.fromkeys(kinds))
    assert once == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for kind, text in (("response.reasoning_text", THOUGHT), ("response.output_text", ANSWER)):
        assert "".join(event.delta for event in events if event.type == f"{kind}.delta") == text
        assert next(event.text for event in events if event.type == f"{kind}.done") == text
        assert kinds.count(f"{kind}.delta") > 1
    assert events[0].response.status == "in_progress"
    assert events[0].response.output == []
    final = events[-1].response
    assert (final.status, final.output_text) == ("completed", ANSWER)
    assert final.usage.output_tokens > 0


def test_every_event_is_one_that_the_clients_types_know(thinking):
    with httpx.stream(
        "POST", f"{thinking.url}/v1/responses", json={"model": "demo", "input": "hi", "stream": True}
    ) as answer:
        lines = list(answer.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == [event["type"] for event in data]
    for event in data:
        assert EVENTS.validate_python(event).type == event["type"]


def test_the_clients_own_accumulator_reads_the_stream(client):
    with client.responses.stream(model="demo", input="what is 2+2?") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_is_an_item_of_its_own(serve, tokenizer, stream):
    with client_of(serve(Model(tokenizer, f"so: {CALL}"))) as client:
        reply = client.responses.create(model="demo", input="add", tools=[TOOL], stream=stream)
        if stream:
            events = list(reply)
            pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
            assert "".join(pieces) == ARGUMENTS
            assert len(pieces) > 5
            reply = events[-1].response
    reasoning, message, call = reply.output
    assert (reasoning.type, message.content[0].text) == ("reasoning", "so:")
    assert (call.type, call.name, call.arguments, call.status) == ("function_call", "add", ARGUMENTS, "completed")
    assert call.call_id.startswith("call_")
    assert reply.tools[0].name == "add"


def test_a_tools_result_goes_back_with_the_items_of_the_reply(serve, tokenizer):
    model = Model(tokenizer, CALL)
    with client_of(serve(model)) as client:
        first = client.responses.create(model="demo", input="add", tools=[TOOL])
        model.answer = "2"
        result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "two"}
        items = [{"role": "user", "content": "add"}, *(item.model_dump() for item in first.output), result]
        second = client.responses.create(model="demo", input=items, tools=[TOOL])
        third = client.responses.create(
            model="demo", input=[result], previous_response_id=first.id, tools=[TOOL], tool_choice="auto"
        )
    assert second.output_text == third.output_text == "2"
    by_items, by_id = (next(prompt for prompt in model.prompts if "two" in prompt), model.prompts[-1])
    assert "<tool_response>two</tool_response>" in by_items
    assert by_id.startswith(by_items)
    assert by_items.count('<tool_call>{"name": "add"') == 1


def test_a_format_holds_for_the_answer(serve, tokenizer):
    model = Model(tokenizer, '{"sum": 2}')
    with client_of(serve(model)) as client:
        reply = client.responses.create(model="demo", input="add", text=FORMAT)
    assert json.loads(reply.output_text) == {"sum": 2}
    assert [grammar and grammar.kind for grammar in model.grammars] == [None, "json"]
    assert reply.text.format.name == "sum"


def test_a_previous_response_is_remembered_without_its_instructions(serve, tokenizer):
    model = Model(tokenizer, "four")
    with client_of(serve(model)) as client:
        first = client.responses.create(model="demo", input="2+2?", instructions="be short")
        second = client.responses.create(model="demo", input="and 3+3?", previous_response_id=first.id)
        client.responses.create(model="demo", input="again", previous_response_id=second.id)
    assert "system\nbe short" in model.prompts[0]
    assert "be short" not in model.prompts[-1]
    turns = ["2+2?", "four", "and 3+3?", "four", "again"]
    places = [model.prompts[-1].find(turn) for turn in turns]
    assert -1 not in places
    assert places == sorted(places) or turns.count("four") > 1
    assert second.previous_response_id == first.id


def test_a_kept_response_is_retrieved_and_deleted(client):
    created = client.responses.create(model="demo", input="hi", metadata={"a": "b"})
    kept = client.responses.retrieve(created.id)
    assert kept.model_dump() == created.model_dump()
    assert kept.metadata == {"a": "b"}
    items = client.responses.input_items.list(created.id)
    assert items.data[0].content[0].text == "hi"
    client.responses.delete(created.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(created.id)
    passing = client.responses.create(model="demo", input="hi", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(passing.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="demo", input="hi", previous_response_id=passing.id)


def test_a_response_in_the_background_is_asked_for_until_it_is_there(serve):
    with client_of(serve([THINKING], token_delay=0.01)) as client:
        reply = client.responses.create(model="demo", input="hi", background=True)
        assert reply.status == "queued"
        deadline = time.monotonic() + 10
        while reply.status in ("queued", "in_progress") and time.monotonic() < deadline:
            time.sleep(0.02)
            reply = client.responses.retrieve(reply.id)
        assert (reply.status, reply.output_text) == ("completed", ANSWER)
        with pytest.raises(openai.ConflictError):
            client.responses.cancel(reply.id)


def test_a_response_that_runs_is_cancelled(serve):
    server = serve([THINKING * 20], token_delay=0.02)
    with client_of(server) as client:
        reply = client.responses.create(model="demo", input="hi", background=True)
        assert client.responses.cancel(reply.id).status == "cancelled"
        assert server.until_idle() == 0
        assert client.responses.retrieve(reply.id).status == "cancelled"
        stream = client.responses.create(model="demo", input="hi", stream=True)
        first = next(stream)
        assert client.responses.cancel(first.response.id).status == "cancelled"
        assert list(stream)[-1].response.status == "cancelled"


def test_a_stop_string_of_any_name_does_not_cancel(serve):
    with client_of(serve(["<no_think>it was cancelled and done</no_think>"])) as client:
        chat = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}], stop=["cancelled"], stream=True
        )
        *_, last = chat
    assert last.choices[0].stop_reason == "cancelled"
    assert "cancelled" not in last.reasond


@pytest.mark.parametrize("fields", [{"input": "word " * 2000}, {"extra_body": {"chat_template_kwargs": {"tools": []}}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_was_refused_pushes_nothing_out(tokenizer, monkeypatch, fields, stream):
    with few(tokenizer, monkeypatch, [DIRECT]) as server, client_of(server) as client:
        ids = [client.responses.create(model="demo", input="hi").id for _ in range(2)]
        for _ in range(2):
            with pytest.raises(openai.BadRequestError):
                client.responses.create(**{"model": "demo", "input": "hi", "stream": stream, **fields})
        assert [client.responses.retrieve(kept).id for kept in ids] == ids


def test_what_runs_in_the_background_is_found_however_much_comes_after_it(tokenizer, monkeypatch):
    script = [THINKING * 20, DIRECT, DIRECT, DIRECT]
    with few(tokenizer, monkeypatch, script, token_delay=0.02) as server, client_of(server) as client:
        slow = client.responses.create(model="demo", input="hi", background=True)
        for _ in range(3):
            client.responses.create(model="demo", input="hi")
        assert client.responses.retrieve(slow.id).status == "in_progress"
        assert client.responses.cancel(slow.id).status == "cancelled"
        assert server.until_idle() == 0


def test_no_more_runs_in_the_background_than_can_be_kept(tokenizer, monkeypatch):
    with few(tokenizer, monkeypatch, [THINKING * 20], token_delay=0.02) as server, client_of(server) as client:
        runs = [client.responses.create(model="demo", input="hi", background=True).id for _ in range(2)]
        with pytest.raises(openai.InternalServerError) as full:
            client.responses.create(model="demo", input="hi", background=True)
        assert (full.value.status_code, full.value.response.headers["retry-after"]) == (503, "1")
        client.responses.delete(runs[0])  # it runs on
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="demo", input="hi", background=True)
        client.responses.cancel(runs[1])


@pytest.mark.parametrize("bound", ["stored_responses = 0", "stored_bytes = 50"])
def test_what_could_not_be_asked_for_again_does_not_run_in_the_background(tokenizer, monkeypatch, bound):
    with few(tokenizer, monkeypatch, [DIRECT], bound) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError, match="background"):
            client.responses.create(model="demo", input="hi", background=True)
        assert client.responses.create(model="demo", input="hi").output_text == ANSWER


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}),
        ("responses", {"input": "hi"}),
    ],
)
def test_arguments_of_the_models_own_template_reach_it_on_every_api(monkeypatch, path, fields):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    written = (ROOT / "demo/tokenizer/chat_template.jinja").read_text(encoding="utf-8")
    noting = HubTokenizer(ROOT / "demo/tokenizer", chat_template="{{ note }}" + written)
    model = Model(noting, ANSWER)
    with served(noting, model) as server:
        for name, status in (("note", 200), ("chat_template", 400)):
            body = {"model": "demo", "chat_template_kwargs": {name: "be brief<think>"}, **fields}
            answer = httpx.post(f"{server.url}/v1/{path}", json=body)
            assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "chat_template_kwargs.chat_template"
    assert [prompt.startswith("be brief<think><|im_start|>user") for prompt in model.prompts] == [True]


def test_a_client_that_leaves_cancels_its_response(serve):
    server = serve([THINKING * 20], token_delay=0.02)
    with client_of(server) as client:
        stream = client.responses.create(model="demo", input="hi", stream=True)
        first = next(stream)
        stream.close()
        assert server.until_idle() == 0
        assert client.responses.retrieve(first.response.id).status == "cancelled"


@pytest.mark.parametrize(
    "control",
    [
        {"reasoning": {"effort": "none"}},
        {"extra_body": {"reasond": {"mode": "no_think"}}},
        {"extra_body": {"thinking_token_budget": 0}},
    ],
)
def test_controls_are_those_of_chat(serve, control):
    with client_of(serve([f"{ANSWER}</no_think>"])) as client:
        reply = client.responses.create(model="demo", input="hi", **control)
    assert reply.reasond["mode"] == "no_think"
    assert [item.type for item in reply.output] == ["message"]


def test_a_budget_holds_and_the_limit_makes_it_incomplete(serve, tokenizer):
    with client_of(serve(Model(tokenizer, "2 " * 50, thought="1 and 1 " * 20))) as client:
        budget = {"reasond": {"budget": 6, "cut": "hard"}}
        reply = client.responses.create(model="demo", input="hi", max_output_tokens=20, extra_body=budget)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert reply.usage.output_tokens_details.reasoning_tokens == 6
    assert reply.usage.output_tokens == 20
    assert (reply.output[0].status, reply.output[1].status) == ("completed", "incomplete")
    assert reply.reasond["cut"] == "hard"


def test_hidden_thinking_is_no_item(thinking):
    with client_of(thinking) as client:
        reply = client.responses.create(model="demo", input="hi", extra_body={"include_reasoning": False})
    assert [item.type for item in reply.output] == ["message"]
    assert reply.usage.output_tokens_details.reasoning_tokens > 0


def test_log_probabilities_come_where_they_are_asked_for(client):
    reply = client.responses.create(model="demo", input="hi", include=["message.output_text.logprobs"], top_logprobs=2)
    items = reply.output[1].content[0].logprobs
    assert "".join(item.token for item in items if not item.token.startswith("<")) == ANSWER
    assert len(items[0].top_logprobs) == 2


def test_a_failure_in_mid_stream_is_an_error_and_a_failed_response(serve):
    server = serve([ScriptedReply("<think>so", error=EngineDead("gone"))])
    with client_of(server) as client:
        *_, error, failed = client.responses.create(model="demo", input="hi", stream=True)
        assert (error.type, error.message) == ("error", "the model's engine is down")
        assert (failed.type, failed.response.error.code) == ("response.failed", "server_error")
    with client_of(server) as client:  # the failure closed the connection
        assert client.responses.retrieve(failed.response.id).status == "failed"


def test_input_tokens_are_counted_without_a_reply(client):
    counted = client.responses.input_tokens.count(model="demo", input="what is 2+2?", reasoning={"effort": "none"})
    used = client.responses.create(model="demo", input="what is 2+2?", reasoning={"effort": "none"}).usage
    assert counted.input_tokens == used.input_tokens


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"input": [{"type": "mesage", "role": "user", "content": "x"}]}, "input.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": "word " * 2000}, "input"),
        ({"tools": [{"type": 7}]}, "tools.0"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"background": True, "stream": True}, "background"),
        ({"truncation": "sometimes"}, "truncation"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
    ],
)
def test_a_refusal_names_the_field(client, arguments, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "demo", "input": "hi", **arguments})
    assert param in f"{caught.value.param} {caught.value.message}"


def test_one_key_does_not_find_anothers_response(tokenizer, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "one,two")
    with served(tokenizer, [DIRECT]) as server, client_of(server, api_key="one") as one:
        reply = one.responses.create(model="demo", input="hi")
        with client_of(server, api_key="two") as two, pytest.raises(openai.NotFoundError):
            two.responses.retrieve(reply.id)


def test_what_is_kept_holds_its_input_once(tokenizer, monkeypatch):
    room = few(tokenizer, monkeypatch, [DIRECT], "stored_bytes = 12_000", context_length=20_000)
    with room as server, client_of(server) as client:
        reply = client.responses.create(model="demo", input="1" * 8000)
        assert client.responses.retrieve(reply.id).status == "completed"
        second = client.responses.create(model="demo", input="and?", previous_response_id=reply.id)
        assert client.responses.retrieve(second.id).previous_response_id == reply.id


def few(tokenizer, monkeypatch, script, bound="stored_responses = 2", **delays):
    """A server that keeps two responses, or as `bound` says."""
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    return served(tokenizer, script, SETTINGS.replace("port = 0", f"port = 0\n{bound}"), **delays)


def test_the_oldest_responses_are_forgotten(tokenizer, monkeypatch):
    with few(tokenizer, monkeypatch, [DIRECT]) as server, client_of(server) as client:
        ids = [client.responses.create(model="demo", input="hi").id for _ in range(3)]
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(ids[0])
        assert [client.responses.retrieve(kept).id for kept in ids[1:]] == ids[1:]
