"""One span a request, a child of its caller's, with the decision record; and nothing at all by default."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, StatusCode

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedEngine, ScriptedReply
from server.app import create_app
from server.config.load import TracingConfig, parse_config
from server.observability.tracing import span_observer, start_tracing
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

SECRET = "my-diagnosis-is-xyzzy"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": SECRET}]}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def observers(exporter):
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(1.0))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return [span_observer(provider)]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_span_with_its_decision_and_its_counts(
    make_app, make_client, exporter, observers, stream
):
    async with make_client(make_app(observers=observers)) as client:
        body = {**CHAT, "stream": stream, "reasond": {"mode": "no_think"}}
        await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "r1"})
        await client.get("/health")
        await client.get("/metrics")
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert span.parent is None
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "reasond.request_id": "r1",
        "reasond.route": "demo",
        "reasond.outcome": "ok",
        "reasond.mode": "no_think",
        "reasond.chosen_by": "client",
        "reasond.choices": 1,
        "reasond.reasoning_tokens": 0,
    }
    assert span.attributes.items() >= expected.items()
    assert span.attributes["reasond.completion_tokens"] >= span.attributes["reasond.answer_tokens"] > 0
    assert 0 < span.attributes["reasond.first_token_seconds"] <= span.attributes["reasond.first_answer_seconds"]
    assert 0 < span.end_time - span.start_time < 60e9
    assert SECRET not in span.to_json()


@pytest.mark.anyio
async def test_a_budget_and_its_cut_are_attributes(tokenizer, make_client, exporter, observers):
    engine = ScriptedEngine(tokenizer, ["<think>1 and 2 and 3</think>5"], name="demo", thinking=("<think>", "</think>"))
    app = create_app(parse_config(ENGINE_AND_ROUTE, ROOT), {"demo": engine}, observers)
    async with make_client(app) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "thinking_token_budget": 2})
        record = answer.json()["reasond"]
    (span,) = exporter.get_finished_spans()
    assert record["budget"]["requested"] == 2 and record["cut"] is not None
    attributes = {name.removeprefix("reasond."): value for name, value in span.attributes.items()}
    assert attributes["cut"] == record["cut"]
    for name, value in record["budget"].items():
        assert attributes.get(f"budget.{name}") == value, name


@pytest.mark.anyio
@pytest.mark.parametrize(("sampled", "spans"), [("01", 1), ("00", 0)])
async def test_a_traceparent_makes_it_a_child_and_says_whether_to_trace(
    make_app, make_client, exporter, observers, sampled, spans
):
    async with make_client(make_app(observers=observers)) as client:
        await client.post("/v1/chat/completions", json=CHAT, headers={"traceparent": f"00-{TRACE}-{SPAN}-{sampled}"})
    assert len(exporter.get_finished_spans()) == spans
    for span in exporter.get_finished_spans():
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == SPAN


@pytest.mark.anyio
async def test_a_failure_is_marked_also_behind_the_first_byte_and_a_refusal_is_none(
    tokenizer, make_client, exporter, observers
):
    engine = ScriptedEngine(tokenizer, [ScriptedReply("<no_think>5", error=EngineDead("down"))], name="demo")
    app = create_app(parse_config(ENGINE_AND_ROUTE, ROOT), {"demo": engine}, observers)
    async with make_client(app) as client:
        await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        await client.post("/v1/chat/completions", json=CHAT)
        await client.post("/v1/chat/completions", json={**CHAT, "temperature": 9})
        await client.get("/nowhere")
    streamed, whole, refused, lost = exporter.get_finished_spans()
    assert [span.status.status_code for span in (streamed, whole)] == [StatusCode.ERROR] * 2
    assert [span.attributes["http.response.status_code"] for span in (streamed, whole, refused)] == [200, 503, 400]
    assert [span.status.status_code for span in (refused, lost)] == [StatusCode.UNSET] * 2
    assert lost.name == "GET"


@pytest.mark.anyio
async def test_the_exporter_is_started_and_stopped_with_the_server():
    async with AsyncExitStack() as stack:
        assert callable(start_tracing(TracingConfig(endpoint="http://127.0.0.1:1/v1/traces"), stack))


def test_without_the_setting_the_library_is_not_loaded():
    code = "import sys, server.serve; print(*(name for name in sys.modules if name.startswith('opentelemetry')))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""


@pytest.mark.anyio
async def test_a_response_in_the_background_has_a_span_of_its_own(make_app, make_client, exporter, observers):
    app = make_app(observers=observers)
    async with make_client(app) as client:
        await client.post("/v1/responses", json={"model": "demo", "input": SECRET, "background": True})
        await asyncio.wait(app.state.runtime.background)
    answered, ended = exporter.get_finished_spans()
    assert (answered.name, answered.kind) == ("POST /v1/responses", SpanKind.SERVER)
    assert "reasond.outcome" not in answered.attributes
    assert (ended.name, ended.kind) == ("POST /v1/responses in the background", SpanKind.INTERNAL)
    assert (ended.attributes["reasond.outcome"], ended.attributes["reasond.answer_tokens"]) == ("ok", 2)
    assert SECRET not in str([answered.attributes, ended.attributes])
