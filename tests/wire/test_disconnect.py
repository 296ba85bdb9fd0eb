"""A client that goes ends its work in the engine, wherever the request stands."""

import time

import httpx
import pytest

from tests.wire.served import THINKING, chat_body

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
LONG = THINKING * 20
RAW_BODY = {"model": "demo", "prompt": "count", "max_tokens": 400}


def until_running(server, count: int) -> None:
    deadline = time.monotonic() + 10
    while server.engine.running() < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def aborted(server, route="demo") -> float:
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    name = f'reasond:request_aborts_total{{cause="client",route="{route}"}}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("path", "body", "requests"),
    [
        (CHAT, chat_body(), 1),
        (CHAT, chat_body(n=3), 3),
        (RAW, RAW_BODY, 1),
        (RAW, {**RAW_BODY, "prompt": ["a", "b"]}, 2),
    ],
)
def test_a_client_gone_in_mid_stream_leaves_nothing_in_the_engine(serve, path, body, requests):
    server = serve([LONG], token_delay=0.02)
    with httpx.stream("POST", server.url + path, json={**body, "stream": True}, timeout=30) as answer:
        lines = answer.iter_lines()
        for _ in range(6):
            next(lines)
        until_running(server, requests)
    assert server.until_idle() == 0
    assert aborted(server) == 1


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat_body()), (CHAT, chat_body(n=3)), (RAW, RAW_BODY)])
def test_a_client_gone_while_it_waits_for_a_whole_reply_leaves_nothing_in_the_engine(serve, path, body):
    server = serve([LONG], token_delay=0.02)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + path, json=body, timeout=0.3)
    assert server.until_idle() == 0
    assert aborted(server) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_gone_before_the_first_token_leaves_nothing_in_the_engine(serve, stream):
    server = serve([LONG], first_token_delay=60)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + CHAT, json=chat_body(stream=stream), timeout=0.3)
    assert server.until_idle() == 0
    assert aborted(server) == 1


def test_a_client_gone_while_its_mode_is_being_decided_leaves_nothing_in_the_engine(serve):
    server = serve(["<think>"], first_token_delay=60)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + CHAT, json=chat_body(model="careful", stream=True), timeout=0.3)
    assert server.until_idle() == 0
    assert aborted(server, "careful") == 1


def test_a_client_that_stays_is_not_disturbed_by_one_that_goes(serve):
    server = serve([THINKING], token_delay=0.02)
    with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True)) as staying:
        lines = staying.iter_lines()
        next(lines)
        with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True)) as going:
            next(going.iter_lines())
        assert list(lines)[-2] == "data: [DONE]"


def test_what_the_engine_holds_can_be_read_from_outside(serve):
    server = serve([LONG], token_delay=0.02)
    with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True)) as answer:
        lines = answer.iter_lines()  # kept: a dropped iterator would close the connection
        next(lines)
        assert 'reasond:engine_requests{engine="demo"} 1.0' in httpx.get(server.url + "/metrics").text
    server.until_idle()
    assert 'reasond:engine_requests{engine="demo"} 0.0' in httpx.get(server.url + "/metrics").text
