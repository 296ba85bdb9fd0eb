"""The chat-like APIs over the demo model in a real vLLM engine: free thinking, then an answer under a grammar."""

import asyncio
import json
from collections.abc import Iterator

import anthropic
import openai
import pytest

from server.app import create_app
from server.config.load import parse_config
from server.serve import DrainingServer, build_server
from tests.conftest import ROOT

pytestmark = pytest.mark.e2e

SETTINGS = """
[server]
port = 0
[engines.demo]
kind = "vllm"
model = "demo/hybrid"
[routes.demo]
engine = "demo"
family = "lhrm"
"""
ASKED = [{"role": "user", "content": "3+4-5*6+2="}]
ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}, "b": {"enum": ["x", "</think>"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
TOOL = {"type": "function", "function": ADD}
SCHEMA = {"type": "object", "properties": {"sum": {"enum": [1, 2]}}, "required": ["sum"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
THINK = {"reasond": {"mode": "think"}}


@pytest.fixture(scope="module")
def url(run, vllm_engine) -> Iterator[str]:
    config = parse_config(SETTINGS, ROOT)
    server = build_server(config, create_app(config, {"demo": vllm_engine}))
    running = run(_started(server))
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"http://{host}:{port}"
    server.should_exit = True
    run(_ended(running))


async def _started(server: DrainingServer) -> asyncio.Task[None]:
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    return task


async def _ended(task: asyncio.Task[None]) -> None:
    await task


@pytest.fixture
def client(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def good(arguments: str) -> bool:
    call = json.loads(arguments)
    return call["a"] in (1, 2) and call["b"] in ("x", "</think>")


@pytest.mark.parametrize("mode", ["think", "no_think", "auto"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_keeps_to_its_schema_behind_the_thinking(client, mode, stream):
    reply = client.chat.completions.create(
        model="demo", messages=ASKED, response_format=FORMAT, stream=stream, extra_body={"reasond": {"mode": mode}}
    )
    if stream:
        deltas = [chunk.choices[0].delta for chunk in reply]
        content = "".join(delta.content or "" for delta in deltas)
        thinking = "".join(getattr(delta, "reasoning", "") for delta in deltas)
    else:
        content = reply.choices[0].message.content
        thinking = getattr(reply.choices[0].message, "reasoning", "")
    assert json.loads(content)["sum"] in (1, 2)
    if mode != "auto":  # a question of a kind that the model does not know: it may think of it or not
        assert bool(thinking) == (mode == "think")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
@pytest.mark.parametrize("budget", [None, 3, 8])
@pytest.mark.parametrize("cut", ["hard", "graceful"])
def test_a_call_that_must_be_is_made_whatever_the_budget(client, choice, budget, cut):
    controls = {"reasond": {"mode": "think", "cut": cut, **({"budget": budget} if budget else {})}}
    reply = client.chat.completions.create(
        model="demo", messages=ASKED, tools=[TOOL], tool_choice=choice, max_tokens=700, extra_body=controls
    )
    message = reply.choices[0].message
    assert message.content is None
    assert all(call.function.name == "add" and good(call.function.arguments) for call in message.tool_calls[:1])
    if choice != "required":
        assert len(message.tool_calls) == 1
        assert reply.choices[0].finish_reason == "tool_calls"
    used = reply.usage.completion_tokens_details.reasoning_tokens
    assert 0 < used <= (budget or 200)


def test_a_choice_that_is_the_models_leaves_it_its_answer(client):
    reply = client.chat.completions.create(model="demo", messages=ASKED, tools=[TOOL], extra_body=THINK)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content
    assert reply.choices[0].message.reasoning


def test_a_schema_that_cannot_be_is_a_400(client):
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="demo", messages=ASKED, response_format=broken, extra_body=THINK)
    assert refused.value.param == "response_format"


def test_responses_think_and_call(client):
    reply = client.responses.create(
        model="demo", input="3+4-5*6+2=", tools=[{"type": "function", **ADD}], tool_choice="required", extra_body=THINK
    )
    assert (reply.output[0].type, reply.output[1].type) == ("reasoning", "function_call")
    assert good(reply.output[1].arguments)
    events = list(client.responses.create(model="demo", input="3+4-5*6+2=", stream=True, extra_body=THINK))
    assert events[-1].response.output_text
    again = client.responses.create(
        model="demo", input="1+1=", previous_response_id=events[-1].response.id, extra_body=THINK
    )
    assert again.output_text


def test_messages_think_and_use_tools(url):
    asked = {"model": "demo", "max_tokens": 700, "messages": ASKED, "thinking": {"type": "enabled", "budget_tokens": 9}}
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        message = client.messages.create(
            **asked,
            tools=[{"name": "add", "input_schema": ADD["parameters"]}],
            tool_choice={"type": "tool", "name": "add"},
        )
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    assert message.content[1].input["a"] in (1, 2)
    assert message.usage.output_tokens_details.thinking_tokens <= 9
    assert [block.type for block in streamed.content] == ["thinking", "text"]
