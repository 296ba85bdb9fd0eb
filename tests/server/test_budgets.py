"""Budgets over HTTP: settings, keys, records, and what a client may ask of a request that runs."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from controllers.policy.controls import EFFORTS
from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import ConfigError, parse_config
from tests.server.conftest import ROOT

pytestmark = pytest.mark.anyio

SETTINGS = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.demo]
engine = "demo"
family = "lhrm"
mode = "think"
[routes.demo.budgets]
cap = 60
efforts = { low = 7 }
cut = "hard"

[routes.kind]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { default = 100, reserve = 20 }

[routes.budgeter]
engine = "demo"
family = "selfbudgeter"

[keys.environment-1]
budget = 30
budget_cap = 40
"""


def story(tokenizer: HubTokenizer) -> Any:
    """Goes on where the prompt ends: a long thought, then an answer; or a declared budget and its solution."""

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
        if "</think>" in said:
            return "so 8"
        if "<think>" in said:
            return "1+" * 200 + "</think>so 8"
        if "<solution>" in said:
            return "8" * 200 + "</solution>"
        return "<budget>50</budget><solution>" + "8" * 40 + "</solution>"

    return script


@pytest.fixture
def engine(tokenizer: HubTokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer, story(tokenizer), name="demo", context_length=2048)


@pytest.fixture
def client(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    monkeypatch.setenv("REASOND_API_KEYS", "one,two")
    app = create_app(parse_config(SETTINGS, ROOT), {"demo": engine})
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reasond", headers={"x-api-key": "two"}
    )


async def ask(client: httpx.AsyncClient, model: str = "demo", key: str = "two", **fields: Any) -> httpx.Response:
    headers = {"x-api-key": key}
    if "request_id" in fields:
        headers["x-request-id"] = fields.pop("request_id")
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    return await client.post("/v1/chat/completions", json=body, headers=headers)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


async def test_a_budget_is_kept_and_recorded(client: httpx.AsyncClient) -> None:
    async with client:
        answer = await ask(client, thinking_budget=12)
    reply = answer.json()
    assert reply["choices"][0]["message"]["reasoning"] == "1+" * 6
    assert reply["choices"][0]["message"]["content"] == "so 8"
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12
    assert reply["reasond"] == {
        "mode": "think",
        "chosen_by": "route",
        "budget": {"scope": "thinking", "requested": 12, "declared": None, "enforced": 12, "used": 12},
        "cut": "hard",
        "cut_by": "budget",
        "segments": 2,
        "discarded_tokens": 0,
    }
    assert answer.headers["x-reasond-budget"] == "12"


async def test_caps_hold_whatever_is_asked_for(client: httpx.AsyncClient) -> None:
    async with client:
        for asked, key, enforced in ((1000, "two", 60), (-1, "two", 60), (1000, "one", 40), (None, "one", 30)):
            answer = (await ask(client, key=key, thinking_budget=asked)).json()
            assert answer["reasond"]["budget"]["enforced"] == enforced
            assert answer["reasond"]["budget"]["requested"] == asked
            assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == enforced


async def test_an_effort_has_its_routes_budget(client: httpx.AsyncClient) -> None:
    async with client:
        low = (await ask(client, reasoning_effort="low")).json()["reasond"]["budget"]
        card = (await client.get("/v1/models/demo")).json()["reasond"]["budgets"]
        kind = (await client.get("/v1/models/kind")).json()["reasond"]["budgets"]
        declared = (await client.get("/v1/models/budgeter")).json()["reasond"]["budgets"]
    assert low["enforced"] == 7
    assert (card["cap"], card["efforts"], card["cut"]) == (60, {**EFFORTS, "low": 7}, "hard")
    assert (kind["default"], kind["answer_reserve"], kind["cut"]) == (100, 20, "graceful")
    assert (declared["scope"], declared["declares"]) == ("reply", True)


async def test_the_stream_tells_the_budget_first_and_how_it_was_kept_last(client: httpx.AsyncClient) -> None:
    async with client:
        said = events(await ask(client, "kind", stream=True, stream_options={"include_usage": True}))
    assert said[0]["reasond"]["budget"]["enforced"] == 100
    assert said[-2]["reasond"]["cut"] == "wrap_up"
    assert said[-2]["reasond"]["budget"]["used"] == said[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"]
    forced = [event["choices"][0] for event in said if event["choices"] and event["choices"][0].get("forced")]
    assert "Considering the limited time" in "".join(choice["delta"].get("reasoning", "") for choice in forced)


async def test_forced_tokens_are_marked_and_have_no_log_probabilities(client: httpx.AsyncClient) -> None:
    async with client:
        whole = (await ask(client, thinking_budget=4, logprobs=True, return_token_ids=True)).json()["choices"][0]
        said = events(await ask(client, thinking_budget=4, logprobs=True, stream=True))
    items = whole["logprobs"]["content"]
    assert len(items) == len(whole["token_ids"])
    assert [index for index, item in enumerate(items) if item["logprob"] is None] == whole["forced"] == [4]
    assert items[4]["token"] == "</think>"
    streamed = [item for event in said for item in (event["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert [item["logprob"] for item in streamed] == [item["logprob"] for item in items]


async def test_a_declared_budget_is_in_the_first_chunk(client: httpx.AsyncClient) -> None:
    async with client:
        await ask(client, "budgeter")
        said = events(await ask(client, "budgeter", stream=True))
    assert said[0]["reasond"]["budget"]["declared"] == 50
    assert said[0]["reasond"]["seconds_to_answer"] > 0
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in said)
    assert text == "8" * 40
    assert said[-1]["reasond"]["budget"]["used"] == 40


async def test_controls_that_cannot_be_honoured_are_refused(client: httpx.AsyncClient) -> None:
    refused = [
        ("demo", {"enable_thinking": True, "thinking_budget": 0}, ("enable_thinking", "thinking_budget")),
        ("demo", {"reasond": {"budget": {"tokens": 5, "scope": "reply"}}}, ("reasond.budget.scope",)),
        ("budgeter", {"thinking_budget": 0}, ("thinking_budget",)),
        ("demo", {"chat_template_kwargs": {"thinking_budget": 5}}, ("chat_template_kwargs.thinking_budget",)),
        ("demo", {"thinking_budget": 5, "presence_penalty": 0.5}, ("presence_penalty",)),
    ]
    async with client:
        for stream in (False, True):
            for model, fields, names in refused:
                answer = await ask(client, model, stream=stream, **fields)
                assert answer.status_code == 400, fields
                assert all(name in answer.json()["error"]["message"] for name in names)


async def test_cuts_and_ratios_are_counted(client: httpx.AsyncClient) -> None:
    async with client:
        await ask(client, thinking_budget=12)
        await ask(client, "kind")
        text = (await client.get("/metrics")).text
    assert 'reasond:cuts_total{by="budget",cut="hard",route="demo"} 1.0' in text
    assert 'reasond:cuts_total{by="budget",cut="wrap_up",route="kind"} 1.0' in text
    assert 'reasond:budget_used_ratio_sum{route="demo"} 1.0' in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prefix", ["", "chatcmpl-"])
async def test_a_running_request_answers_now(
    client: httpx.AsyncClient, engine: ScriptedEngine, stream: bool, prefix: str
) -> None:
    engine.token_delay = 0.005
    async with client:
        running = asyncio.create_task(ask(client, "kind", thinking_budget=-1, stream=stream, request_id="run-1"))
        await asyncio.sleep(0.1)
        asked = time.perf_counter()
        answer = await client.post(f"/v1/reasoning/{prefix}run-1/answer")
        reply = await running
        seconds = time.perf_counter() - asked
    assert (answer.status_code, answer.json()["asked"]) == (200, "answer")
    record = events(reply)[-1]["reasond"] if stream else reply.json()["reasond"]
    assert (record["cut"], record["cut_by"]) == ("wrap_up", "client")
    assert seconds < 0.5  # it would have thought for another two seconds
    assert not client_state(client)


async def test_a_running_request_can_be_cancelled(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.token_delay = 0.005
    async with client:
        running = asyncio.create_task(ask(client, "kind", request_id="run-2"))
        await asyncio.sleep(0.1)
        assert (await client.post("/v1/reasoning/run-2/cancel")).status_code == 200
        choice = (await running).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "cancelled")
    assert engine.running() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_waits_for_its_first_token_is_cancelled_at_once(
    client: httpx.AsyncClient, engine: ScriptedEngine, stream: bool
) -> None:
    engine.first_token_delay = 5
    async with client:
        running = asyncio.create_task(ask(client, "kind", request_id="run-6", stream=stream))
        await asyncio.sleep(0.1)
        asked = time.perf_counter()
        assert (await client.post("/v1/reasoning/run-6/cancel")).status_code == 200
        answer = await running
        seconds = time.perf_counter() - asked
    assert answer.status_code == 200
    assert (events(answer)[-1] if stream else answer.json())["reasond"]["cancelled"]
    assert seconds < 0.2
    assert engine.running() == 0


async def test_only_the_key_that_made_a_request_finds_it(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.token_delay = 0.005
    async with client:
        running = asyncio.create_task(ask(client, "kind", request_id="run-3"))
        await asyncio.sleep(0.05)
        other = await client.post("/v1/reasoning/run-3/cancel", headers={"x-api-key": "one"})
        unknown = await client.post("/v1/reasoning/run-4/answer")
        await running
        late = await client.post("/v1/reasoning/run-3/answer")
    assert {other.status_code, unknown.status_code, late.status_code} == {404}


async def test_a_request_whose_penalties_forbid_a_cut_says_so(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.token_delay = 0.005
    free = SETTINGS.replace("budgets = { default = 100, reserve = 20 }", "")
    app = create_app(parse_config(free, ROOT), {"demo": engine})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reasond", headers={"x-api-key": "two"}
    ) as client:
        running = asyncio.create_task(ask(client, "kind", request_id="run-5", frequency_penalty=0.5, max_tokens=60))
        await asyncio.sleep(0.1)
        answer = await client.post("/v1/reasoning/run-5/answer")
        await running
    assert answer.status_code == 409
    assert "frequency_penalty" in answer.json()["error"]["message"]


def client_state(client: httpx.AsyncClient) -> dict[Any, Any]:
    app = client._transport.app  # type: ignore[attr-defined]
    return dict(app.state.runtime.running._interrupts)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ('family = "plain"\nbudgets = { cap = 5 }', r"routes\.r\.budgets: family 'plain' has no budgets"),
        ('family = "selfbudgeter"\nbudgets = { cap = 0 }', r"routes\.r\.budgets\.cap: .*at least 1"),
        ('family = "selfbudgeter"\nbudgets = { efforts = { low = 0 } }', r"budgets\.efforts\.low"),
        ('family = "selfbudgeter"\nbudgets = { cut = "hard", reserve = 2 }', r"budgets\.cut: .*reserve"),
        ('family = "lhrm"\nbudgets = { hold_declared = true }', r"hold_declared: .*declare no budget"),
        ('family = "lhrm"\nbudgets = { efforts = { extreme = 5 } }', r"routes\.r\.budgets\.efforts\.extreme"),
        ('family = "lhrm"\nbudgets = { cap = -1 }', r"routes\.r\.budgets\.cap"),
    ],
)
async def test_budgets_that_make_no_sense_are_refused_by_their_key(wrong: str, key: str) -> None:
    text = '[engines.e]\nkind = "scripted"\nmodel = "demo/tokenizer"\n[routes.r]\nengine = "e"\n' + wrong
    with pytest.raises(ConfigError, match=key):
        parse_config(text, ROOT)


async def test_limits_for_a_key_that_does_not_exist_are_refused(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASOND_API_KEYS", "")
    with pytest.raises(ConfigError, match=r"keys\.environment-1"):
        create_app(parse_config(SETTINGS, ROOT), {"demo": engine})
