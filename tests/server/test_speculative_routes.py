"""Speculative routes from outside: configuration, model card, marks on the wire, metrics, and a target that dies."""

import httpx
import orjson
import pytest

from controllers.policy.speculation import CUES, CueList
from models.engines.base import Grammar, Prompt, Sampling
from models.engines.scripted import Line, Script, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import ConfigError, parse_config
from tests.controllers.stories import said
from tests.processes import ROOT
from tests.wire.test_tools import ADD, CALL, FORMAT

ROUTES = """
[engines.small]
kind = "scripted"
model = "demo/tokenizer"

[engines.large]
kind = "scripted"
model = "demo/tokenizer"
replies = ["5"]

[routes.both]
controller = "speculative"
engine = "small"
family = "lhrm"
mode = "think"
[routes.both.speculative]
target = "large"
takeover_tokens = 3
"""
BODY = {"model": "both", "messages": [{"role": "user", "content": "hi"}]}
SMALL = "One.\n\nWait, no. And on.\n\nSo.</think>two"
pytestmark = pytest.mark.anyio


def app_over(tokenizer: HubTokenizer, small: Script | list[str], target: list[str], extra: str = ""):
    engines = {
        "small": ScriptedEngine(tokenizer, small, name="small"),
        "large": ScriptedEngine(tokenizer, target, name="large"),
    }
    return create_app(parse_config(ROUTES + extra, ROOT), engines), engines


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reasond")


def settings(text: str):
    return parse_config(text, ROOT).routes["both"].speculative


def test_a_route_s_settings_are_the_paper_s_unless_it_says_otherwise():
    found = settings(ROUTES)
    assert (found.lengths.takeover_tokens, found.lengths.verification_tokens, found.lengths.excess_tokens) == (
        3,
        125,
        125,
    )
    assert (found.lengths.excess_after, found.lengths.opening_tokens, found.sentence_tokens) == (15, 0, 20)
    assert found.longest == found.lengths
    assert found.all_cues == tuple(CUES.values())


def test_caps_cues_and_the_variant_for_small_models_that_do_not_reason_are_settings():
    extra = 'small_reasons = false\ncaps = { takeover_tokens = 9 }\ncues.de = { reflection = ["moment"] }\n'
    found = settings(ROUTES + extra)
    assert (found.lengths.opening_tokens, found.longest.takeover_tokens, found.small_reasons) == (100, 9, False)
    assert found.all_cues[-1] == CueList(reflection=("moment",))
    assert settings(ROUTES + "small_reasons = false\nopening_tokens = 7\n").lengths.opening_tokens == 7


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (('target = "large"', 'target = "huge"'), "routes.both.speculative.target: no engine"),
        (('target = "large"', 'target = "small"'), "routes.both.speculative.target: the target is"),
        (('target = "large"', 'target = "large"\nadapter = "x"'), "routes.both.speculative.adapter"),
        (('controller = "speculative"', ""), "routes.both.controller"),
        (
            ('target = "large"', 'target = "large"\ncues.de = { reflection = [" "] }'),
            "speculative.cues.de.reflection.0",
        ),
    ],
)
def test_what_does_not_hang_together_is_refused_by_its_key(change, key):
    with pytest.raises(ConfigError) as refused:
        parse_config(ROUTES.replace(*change), ROOT)
    assert key in str(refused.value)


def test_a_target_that_cannot_score_with_one_token_is_refused(tokenizer, monkeypatch):
    encode = type(tokenizer).encode_control
    monkeypatch.setattr(
        type(tokenizer), "encode_control", lambda self, text: [1, 2] if text.isdecimal() else encode(self, text)
    )
    with pytest.raises(ConfigError, match="digit"):
        app_over(tokenizer, [SMALL], ["5"], 'method = "accept"\n')


async def test_the_model_card_tells_what_the_target_does(tokenizer):
    app, _ = app_over(tokenizer, [SMALL], ["5"])
    async with client_of(app) as client:
        card = (await client.get("/v1/models/both")).json()["reasond"]["speculative"]
    assert (card["target"], card["method"], card["degraded"], card["takeover_tokens"]) == (
        "large",
        "takeover",
        False,
        3,
    )
    assert card["caps"]["takeover_tokens"] == 3


async def test_a_streamed_reply_marks_the_target_s_chunks_and_its_record_tells_the_rest(tokenizer):
    app, _ = app_over(tokenizer, [SMALL, " on</think>two"], ["Hold on, it"])
    async with client_of(app) as client:
        answer = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
        metrics = (await client.get("/metrics")).text
    events = [orjson.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    marked = [e["choices"][0]["delta"]["reasoning"] for e in events if e["choices"][0].get("target")]
    assert "".join(marked) == tokenizer.decode(tokenizer.encode("Hold on, it")[:3])
    record = events[-1]["reasond"]
    assert (record["takeovers"], record["target_tokens"], record["target_failure"]) == ({"reflection": 1}, 3, None)
    assert record["speculative"]["hand_overs"] == 2
    assert 'reasond:takeovers_total{kind="reflection",route="both"} 1.0' in metrics
    assert 'reasond:model_tokens_total{model="target",route="both"} 3.0' in metrics
    assert 'reasond:route_degraded{route="both"} 0.0' in metrics
    assert record["discarded_tokens"] > 0


async def test_a_whole_reply_lists_the_positions_of_the_target_s_tokens(tokenizer):
    app, _ = app_over(tokenizer, [SMALL, " on</think>two"], ["Hold on, it"])
    async with client_of(app) as client:
        answer = (await client.post("/v1/chat/completions", json={**BODY, "return_token_ids": True})).json()
    choice = answer["choices"][0]
    start = len(tokenizer.encode("One.\n\n"))
    assert choice["target"] == [start, start + 1, start + 2]
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"]


FORMATTED = ({"response_format": FORMAT}, '{"sum": 2}')


@pytest.mark.parametrize(("asked", "answer"), [FORMATTED, ({"tools": [ADD]}, CALL)], ids=["format", "tools"])
async def test_formats_and_tools_are_kept_to_behind_a_takeover(tokenizer, asked, answer):
    grammars: list[Grammar | None] = []

    def small(prompt: Prompt, sampling: Sampling) -> Line:
        grammars.append(sampling.grammar)
        reply = said(tokenizer, prompt.token_ids)
        if "</think>" in reply:
            return answer
        return f" on</think>{answer}" if "Hold" in reply else SMALL

    app, _ = app_over(tokenizer, small, ["Hold on, it"])
    async with client_of(app) as client:
        reply = (await client.post("/v1/chat/completions", json={**BODY, **asked})).json()
    message = reply["choices"][0]["message"]
    assert (message["content"] or message["tool_calls"][0]["function"]["name"]) in (answer, "add")
    assert reply["reasond"]["takeovers"] == {"reflection": 1}
    *thinking, answering = grammars
    assert thinking == [None, None] and answering is not None


async def test_a_request_s_lengths_are_held_within_the_route_s(tokenizer):
    app, _ = app_over(tokenizer, [SMALL, " on</think>two"], ["Hold on, it"])
    async with client_of(app) as client:
        less = {"reasond": {"speculative": {"takeover_tokens": 2}}}
        answer = (await client.post("/v1/chat/completions", json={**BODY, **less})).json()
        unknown = await client.post("/v1/chat/completions", json={**BODY, "reasond": {"speculative": {"n1": 2}}})
    assert answer["reasond"]["target_tokens"] == 2
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "reasond.speculative.n1")


async def test_a_server_without_its_target_is_ready_and_says_what_is_degraded(tokenizer):
    app, engines = app_over(tokenizer, [SMALL, SMALL], ["5"])
    async with client_of(app) as client:
        assert (await client.get("/ready")).json() == {"status": "ready"}
        await engines["large"].close()
        ready = await client.get("/ready")
        answer = (await client.post("/v1/chat/completions", json=BODY)).json()
        card = (await client.get("/v1/models/both")).json()["reasond"]["speculative"]
        metrics = (await client.get("/metrics")).text
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "degraded": ["both"]})
    assert (answer["reasond"]["target_failure"], card["degraded"]) == ("dead", True)
    assert 'reasond:target_failures_total{cause="dead",route="both"} 1.0' in metrics
    assert 'reasond:route_degraded{route="both"} 1.0' in metrics


SPARED = ROUTES[ROUTES.index("[routes.both]") :].replace("both", "spared")


@pytest.mark.parametrize("other", ["", SPARED], ids=["alone", "beside a route that can do without"])
async def test_a_route_that_fails_with_its_target_needs_it_to_be_ready(tokenizer, other):
    app, engines = app_over(tokenizer, [SMALL], ["5"], 'on_failure = "fail"\n' + other)
    await engines["large"].close()
    async with client_of(app) as client:
        assert (await client.get("/ready")).status_code == 503
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code >= 500
