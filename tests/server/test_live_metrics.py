"""What the metrics say of replies while they run: how many in which mode, under a budget, and at what speed."""

import asyncio

import pytest

from models.engines.scripted import ScriptedEngine
from server.app import create_app
from server.config.load import parse_config
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

pytestmark = pytest.mark.anyio
THOUGHT = "<think>" + "3 and 2, " * 40 + "</think>5"


def metric(app, name, **labels):
    return app.state.runtime.metrics.registry.get_sample_value(f"reasond:{name}", {"route": "demo", **labels})


async def test_replies_in_flight_are_counted_by_mode_and_budget_and_their_tokens_as_they_come(
    tokenizer, make_client, monkeypatch
):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    engine = ScriptedEngine(tokenizer, [THOUGHT], name="demo", token_delay=0.004)
    app = create_app(parse_config(ENGINE_AND_ROUTE, ROOT), {"demo": engine})
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "thinking_token_budget": 150}
    seen = []
    async with make_client(app) as client:
        asked = asyncio.ensure_future(client.post("/v1/chat/completions", json=body, headers={"x-request-id": "one"}))
        while not metric(app, "generated_tokens_total", kind="reasoning"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seen = [metric(app, "replies_running", mode=mode) for mode in ("think", "no_think")]
        seen += [metric(app, "budgets_running"), metric(app, "request_reasoning_tokens_count")]
        reply = (await asked).json()
    assert seen == [1, 0, 1, 0]
    assert [metric(app, "replies_running", mode="think"), metric(app, "budgets_running")] == [0, 0]
    usage = reply["usage"]
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    assert metric(app, "generated_tokens_total", kind="reasoning") == thought == 150
    assert metric(app, "generated_tokens_total", kind="answer") == usage["completion_tokens"] - thought


async def test_a_reply_that_its_client_leaves_is_in_flight_no_longer(tokenizer, make_client, monkeypatch):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    engine = ScriptedEngine(tokenizer, [THOUGHT], name="demo", token_delay=0.004)
    app = create_app(parse_config(ENGINE_AND_ROUTE, ROOT), {"demo": engine})
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    async with make_client(app) as client:
        asked = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
        while not metric(app, "generated_tokens_total", kind="reasoning"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        asked.cancel()
        await asyncio.wait((asked,))
    assert metric(app, "replies_running", mode="think") == 0
    assert 0 < metric(app, "generated_tokens_total", kind="reasoning") < 200
