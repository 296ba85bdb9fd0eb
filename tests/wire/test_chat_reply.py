"""Chat completions that are not streamed: one JSON answer."""

import httpx
import pytest

from models.engines.base import EngineBusy, EngineDead
from models.engines.scripted import ScriptedReply
from tests.wire.served import ANSWER, DIRECT, THINKING, THOUGHT, ask, chat_body, record

pytestmark = pytest.mark.every_step

RECORD = {"mode": "think", "chosen_by": "model"}


def test_a_thinking_reply_is_one_object_with_reasoning_answer_usage_and_decision(thinking, tokenizer):
    answer = ask(thinking.url, chat_body())
    reply = answer.json()
    thought, told = (len(tokenizer.encode(text)) for text in (THOUGHT, ANSWER))
    prompt, completion = reply["usage"]["prompt_tokens"], thought + told + 3
    message = {"role": "assistant", "content": ANSWER, "reasoning": THOUGHT, "reasoning_content": THOUGHT}
    assert reply == {
        "id": f"chatcmpl-{answer.headers['x-request-id']}",
        "object": "chat.completion",
        "created": reply["created"],
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "reasond": RECORD,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": thought},
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "reasond": RECORD,
    }
    assert (answer.headers["x-reasond-mode"], answer.headers["x-reasond-chosen-by"]) == ("think", "model")


def test_a_direct_reply_has_no_reasoning_keys(direct):
    message = ask(direct.url, chat_body()).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": ANSWER}


def test_thinking_that_is_not_shown_leaves_no_keys_and_is_charged_for(thinking):
    reply = ask(thinking.url, chat_body(include_reasoning=False)).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": ANSWER}
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert reply["reasond"] == RECORD


def test_streamed_and_whole_replies_say_the_same(serve):
    replies = [THINKING, DIRECT, THINKING, DIRECT]
    server = serve(replies)
    body = chat_body(n=2)
    whole = ask(server.url, body).json()
    stream = record(server.url, {**body, "stream_options": {"include_usage": True}})
    for index, choice in enumerate(whole["choices"]):
        assert stream.joined("content", index) == choice["message"]["content"]
        assert stream.joined("reasoning", index) == choice["message"].get("reasoning", "")
    assert stream.events[-1].data["usage"] == whole["usage"]


def test_several_choices_each_have_their_decision(serve):
    reply = ask(serve([THINKING, DIRECT]).url, chat_body(n=2)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert [choice["reasond"]["mode"] for choice in reply["choices"]] == ["think", "no_think"]


def test_logprobs_and_token_ids_cover_every_token_of_the_reply(thinking, tokenizer):
    reply = ask(thinking.url, chat_body(logprobs=True, top_logprobs=1, return_token_ids=True)).json()
    choice = reply["choices"][0]
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"]) == reply["usage"]["completion_tokens"]
    assert tokenizer.decode(choice["token_ids"], skip_special_tokens=False).startswith(THINKING)
    assert "what is 2+2?" in tokenizer.decode(reply["prompt_token_ids"])
    assert len(reply["prompt_token_ids"]) == reply["usage"]["prompt_tokens"]


def test_a_stop_string_is_not_part_of_the_answer(thinking):
    choice = ask(thinking.url, chat_body(stop=".")).json()["choices"][0]
    assert choice["message"]["content"] == "it is 4"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ".")


def test_a_reply_cut_inside_its_thinking_has_reasoning_and_an_empty_answer(thinking):
    choice = ask(thinking.url, chat_body(max_tokens=3)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert THOUGHT.startswith(choice["message"]["reasoning"])


def test_a_tag_that_the_user_typed_stays_text(thinking):
    body = {"model": "demo", "messages": [{"role": "user", "content": "say </think> and <no_think>"}]}
    assert ask(thinking.url, body).json()["choices"][0]["message"]["reasoning"] == THOUGHT


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(EngineDead("gone"), 503, "engine_dead"), (EngineBusy("full"), 503, "overloaded"), (KeyError("x"), 500, None)],
)
def test_an_engines_failure_is_an_error_answer_that_tells_nothing_of_the_inside(serve, error, status, code):
    answer = ask(serve([ScriptedReply("<think>so", error=error)]).url, chat_body())
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == (code or "internal_error")
    assert "Traceback" not in answer.text


def test_the_same_connection_serves_one_request_after_another(thinking):
    with httpx.Client(base_url=thinking.url) as client:
        for _ in range(3):
            assert client.post("/v1/chat/completions", json=chat_body()).status_code == 200
            with client.stream("POST", "/v1/chat/completions", json=chat_body(stream=True)) as answer:
                assert answer.read().endswith(b"data: [DONE]\n\n")
