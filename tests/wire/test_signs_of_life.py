"""Signs of life: headers within a second, and no long silence, on every API, while clients read the same reply."""

from typing import Any

import anthropic
import httpx
import openai
import pytest

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedReply
from tests.wire.served import ANSWER, SETTINGS, THINKING, THOUGHT, Served, ask, chat_body, listen

KEEP_ALIVE = 0.3
QUICK = f"[server]\nkeep_alive_seconds = {KEEP_ALIVE}\n"
PATIENT = SETTINGS.replace("[server]\n", QUICK)
SLACK = 0.7  # of a machine that does other things as well
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(),
    "/v1/completions": {"model": "demo", "prompt": "hi", "max_tokens": 30},
    "/v1/messages": chat_body(max_tokens=200),
    "/v1/responses": {"model": "demo", "input": "hi"},
}
JUDGE = """
[routes.judge]
engine = "demo"
family = "plain"
controller = "judge"
"""
PAIR = {"query": "2+2?", "replies": ["4", "5"]}


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_waits_for_the_first_token_hears_that_its_request_is_alive(serve, path):
    server = serve([THINKING], settings=PATIENT, first_token_delay=2.0)
    heard = listen(server.url, path, {**BODIES[path], "stream": True})
    assert heard.status == 200
    assert heard.times[0] < 1
    assert heard.longest_silence < KEEP_ALIVE + SLACK
    assert len(heard.times) > 4
    sign = "event: ping\n" if path == "/v1/messages" else ": keep-alive\n"
    assert heard.text.count(": keep-alive\n") + heard.text.count(sign) > 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_hidden_thinking_is_not_silence(serve, path):
    server = serve([THINKING], settings=PATIENT, token_delay=0.15)
    heard = listen(server.url, path, {**BODIES[path], "stream": True, "include_reasoning": False})
    assert "and 2" in THOUGHT and "and 2" not in heard.text
    assert heard.longest_silence < KEEP_ALIVE + SLACK
    assert heard.text.count("keep-alive") + heard.text.count("event: ping") > 1


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_in_which_nothing_is_late_has_no_signs_of_life(serve, path):
    heard = listen(serve([THINKING], settings=PATIENT).url, path, {**BODIES[path], "stream": True})
    assert "keep-alive" not in heard.text
    assert "ping" not in heard.text


def test_a_ping_follows_the_start_of_its_message(serve):
    """The route of mode think starts its message at once; one that lets the model choose only with its first token."""
    waits = PATIENT + '[routes.think]\nengine = "demo"\nfamily = "lhrm"\nmode = "think"\n'
    server = serve([THINKING], settings=waits, first_token_delay=1.5)
    for model, first, second in (("think", "message_start", "ping"), ("demo", "message_start", "content_block_start")):
        heard = listen(server.url, "/v1/messages", {**BODIES["/v1/messages"], "model": model, "stream": True})
        named = [line.removeprefix("event: ") for line in heard.text.splitlines() if line.startswith("event: ")]
        assert named[:2] == [first, second]


def test_the_newest_clients_read_over_signs_of_life(serve):
    server = serve([THINKING], settings=PATIENT, first_token_delay=1.2)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(model="demo", messages=chat_body()["messages"], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
        with client.responses.stream(model="demo", input="hi") as stream:
            assert stream.get_final_response().output_text == ANSWER
    with (
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client,
        client.messages.stream(model="demo", max_tokens=99, messages=chat_body()["messages"]) as stream,
    ):
        assert stream.get_final_text() == ANSWER


@pytest.mark.parametrize("path", BODIES)
def test_what_is_refused_at_once_has_its_own_status_and_what_fails_later_an_event(serve, path):
    dead = ScriptedReply("", error=EngineDead("gone"))
    at_once = ask(serve([dead], settings=PATIENT).url, {**BODIES[path], "stream": True}, path)
    assert at_once.status_code == 503
    dies = ScriptedReply("<think>", error=EngineDead("gone"))
    late = listen(serve([dies], settings=PATIENT, first_token_delay=1.2).url, path, {**BODIES[path], "stream": True})
    assert late.status == 200
    assert "the model's engine is down" in late.text


def test_headers_tell_the_mode_where_it_is_known_in_time(serve):
    waits = PATIENT + '[routes.think]\nengine = "demo"\nfamily = "lhrm"\nmode = "think"\n'
    server = serve([THINKING], settings=waits, first_token_delay=1.0)
    told = {}
    for model in ("think", "demo"):
        heard = listen(server.url, "/v1/chat/completions", chat_body(model=model, stream=True))
        told[model] = heard.headers.get("x-reasond-mode")
        assert '"reasond":{"mode":"think"' in heard.text
    assert told == {"think": "think", "demo": None}


@pytest.mark.parametrize("items", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_judging_is_not_silence(serve, items, stream):
    server = serve(["\\boxed{Assistant 1}"], settings=PATIENT + JUDGE, first_token_delay=1.5)
    body = {"model": "judge", "items": [PAIR]} if items else {"model": "judge", **PAIR}
    heard = listen(server.url, "/v1/rewards/compare", {**body, "stream": stream})
    assert heard.status == 200
    if stream or items:
        assert heard.times[0] < 1
        assert heard.longest_silence < KEEP_ALIVE + SLACK
    if not stream:
        assert httpx.Response(200, text=heard.text).json()["object"] in ("list", "reward.comparison")


def test_a_client_that_leaves_while_it_hears_signs_of_life_frees_its_request(serve: Any) -> None:
    server: Served = serve([THINKING], settings=PATIENT, first_token_delay=30.0)
    with httpx.stream("POST", server.url + "/v1/chat/completions", json=chat_body(stream=True), timeout=10) as answer:
        pieces = answer.iter_raw()
        assert [next(pieces) for _ in range(2)] == [b": keep-alive\n\n"] * 2
        assert server.engine.running() == 1
    assert server.until_idle() == 0
