"""The official `openai` Python client against a real server."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

from models.engines.base import EngineBusy, EngineDead
from models.engines.scripted import ScriptedReply
from tests.wire.served import ANSWER, DIRECT, THINKING, THOUGHT, Served, served

MESSAGES = [{"role": "user", "content": "what is 2+2?"}]


def client_of(server: Served, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", **{"api_key": "any", "max_retries": 0, **options})


@pytest.fixture
def client(thinking) -> Iterator[openai.OpenAI]:
    with client_of(thinking) as client:
        yield client


def test_a_chat_completion_is_read_with_its_reasoning_and_usage(client, tokenizer):
    reply = client.chat.completions.create(model="demo", messages=MESSAGES)
    message = reply.choices[0].message
    assert (message.role, message.content, message.reasoning_content) == ("assistant", ANSWER, THOUGHT)
    assert message.reasoning == message.reasoning_content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens_details.reasoning_tokens == len(tokenizer.encode(THOUGHT))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.reasond == {"mode": "think", "chosen_by": "model"}


def test_a_stream_is_read_chunk_by_chunk(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="demo", messages=MESSAGES, stream=True, stream_options=options))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == THOUGHT
    assert deltas[0].role == "assistant"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens > 0) == ([], True)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_the_clients_own_accumulator_puts_a_stream_together(client):
    with client.chat.completions.stream(model="demo", messages=MESSAGES) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert message.content == ANSWER


def test_logprobs_are_read_as_the_clients_own_types(client):
    reply = client.chat.completions.create(model="demo", messages=MESSAGES, logprobs=True, top_logprobs=1)
    tokens = reply.choices[0].logprobs.content
    assert tokens[0].token == "<think>"
    assert tokens[0].top_logprobs[0].logprob == tokens[0].logprob


def test_raw_completions_streamed_and_not(serve):
    with client_of(serve(["one two"])) as client:
        whole = client.completions.create(model="demo", prompt="count")
        assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("one two", "stop")
        pieces = client.completions.create(model="demo", prompt="count", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "one two"


def test_the_model_list_and_one_model_with_its_abilities(client):
    assert [model.id for model in client.models.list()] == ["demo", "careful"]
    assert client.models.retrieve("careful").reasond["think_threshold"] == 0.5
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    "control",
    [
        {"reasoning_effort": "none"},
        {"extra_body": {"reasond": {"mode": "no_think"}}},
        {"extra_body": {"enable_thinking": False}},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"extra_body": {"thinking": {"type": "disabled"}}},
    ],
)
def test_controls_go_as_a_field_of_the_client_or_in_extra_body(serve, control):
    with client_of(serve([f"{ANSWER}</no_think>"])) as client:
        reply = client.chat.completions.create(model="demo", messages=MESSAGES, **control)
    assert reply.reasond == {"mode": "no_think", "chosen_by": "client"}
    assert reply.choices[0].message.content == ANSWER


@pytest.mark.parametrize(
    ("arguments", "kind", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
        ({"extra_body": {"think": True, "enable_thinking": False}}, openai.BadRequestError, "think"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, openai.BadRequestError, "messages"),
    ],
)
def test_a_refusal_is_the_clients_own_exception_with_the_field(client, arguments, kind, param):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "demo", "messages": MESSAGES, **arguments})
    assert param in caught.value.param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_a_wrong_key_is_an_authentication_error(tokenizer, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "right")
    with served(tokenizer, [DIRECT]) as server:
        with client_of(server) as stranger, pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(model="demo", messages=MESSAGES)
        with client_of(server, api_key="right") as friend:
            assert friend.chat.completions.create(model="demo", messages=MESSAGES).choices[0].message.content == ANSWER


def test_a_dead_engine_is_an_internal_server_error_and_in_mid_stream_an_api_error(serve):
    with client_of(serve([ScriptedReply("<think>so", error=EngineDead("gone"))])) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="demo", messages=MESSAGES)
        assert (caught.value.status_code, caught.value.code) == (503, "engine_dead")
        seen = []
        with pytest.raises(openai.APIError, match="engine is down"):
            for chunk in client.chat.completions.create(model="demo", messages=MESSAGES, stream=True):
                seen.append(chunk)
        assert "".join(getattr(chunk.choices[0].delta, "reasoning", "") for chunk in seen) == "so"


def test_a_full_queue_is_tried_again_by_the_client_itself(serve):
    server = serve([ScriptedReply("", error=EngineBusy("full")), DIRECT])
    with client_of(server, max_retries=1) as client:
        reply = client.chat.completions.create(model="demo", messages=MESSAGES)
    assert reply.choices[0].message.content == ANSWER


def test_a_timeout_of_the_client_leaves_nothing_in_the_engine(serve):
    server = serve([THINKING], first_token_delay=60)
    for stream in (False, True):
        with client_of(server) as client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="demo", messages=MESSAGES, stream=stream, timeout=0.3)
        assert server.until_idle() == 0


def test_closing_a_stream_leaves_nothing_in_the_engine(serve):
    server = serve([THINKING * 10], token_delay=0.02)
    with client_of(server) as client:
        stream = client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
        next(stream)
        assert server.engine.running() == 1
        stream.close()
        assert server.until_idle() == 0
        assert client.models.list().data


def test_cancelling_an_asynchronous_call_leaves_nothing_in_the_engine(serve):
    server = serve([THINKING], first_token_delay=60)

    async def cancelled() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            call = asyncio.create_task(client.chat.completions.create(model="demo", messages=MESSAGES))
            while not server.engine.running():  # noqa: ASYNC110 - the engine is in another thread
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(cancelled())
    assert server.until_idle() == 0


def test_many_asynchronous_streams_at_once_keep_their_own_words(serve):
    server = serve(lambda prompt, sampling: f"<think>seed {sampling.seed}</think>{sampling.seed}", token_delay=0.002)

    async def one(client: openai.AsyncOpenAI, seed: int) -> str:
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True, seed=seed)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(one(client, seed) for seed in range(32)))

    assert asyncio.run(many()) == [str(seed) for seed in range(32)]
