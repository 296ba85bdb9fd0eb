"""Two replicas and one store: the life of a response, wherever it is asked for; and what a lost store takes along."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from models.engines.scripted import ScriptedEngine
from server.app import create_app
from server.config.load import ConfigError, parse_config
from server.stores import open_responses, shared
from tests.judging import Reader, larger_number
from tests.processes import Redis
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.judges import JUDGE

BODY = {"model": "demo", "input": "2+3"}
needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server (Debian's package)")


@pytest.fixture
def redis() -> Iterator[Redis]:
    server = Redis()
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'responses.db'}"
    return f"redis://127.0.0.1:{request.getfixturevalue('redis').port}"


@asynccontextmanager
async def replica(tokenizer, store: str, delay: float = 0.0) -> AsyncIterator[httpx.AsyncClient]:
    config = parse_config(f'[server]\nstore = "{store}"\n{ENGINE_AND_ROUTE}', ROOT)
    script = ["<think>" + "so " * 60 + "</think>five"] if delay else ["<think>so</think>five"]
    engine = ScriptedEngine(tokenizer, script, name="demo", token_delay=delay)
    responses = open_responses(config)
    app = create_app(config, {"demo": engine}, store=responses)
    sharing = asyncio.create_task(responses.run(app.state.runtime.running.ask))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reasond", timeout=20) as client:
        client.sharing = sharing  # type: ignore[attr-defined]
        yield client
        if not sharing.done():
            await responses.flush()
    sharing.cancel()
    await asyncio.wait([sharing])
    await responses.close()


@asynccontextmanager
async def two(tokenizer, store: str, delay: float = 0.0) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(tokenizer, store, delay)) for _ in range(2)]


async def settled(client: httpx.AsyncClient, response_id: str, status: str) -> dict:
    async with asyncio.timeout(5):
        while (body := (await client.get(f"/v1/responses/{response_id}")).json()).get("status") != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return body


@pytest.mark.anyio
async def test_a_response_of_one_replica_is_every_ones(tokenizer, store):
    async with two(tokenizer, store) as (one, other):
        first = (await one.post("/v1/responses", json=BODY)).json()
        found = await settled(other, first["id"], "completed")
        assert found == first
        items = (await other.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
        assert items[0]["content"][0]["text"] == "2+3"
        second = await other.post("/v1/responses", json={**BODY, "previous_response_id": first["id"]})
        assert second.status_code == 200, second.text
        reference = {"type": "item_reference", "id": first["output"][-1]["id"]}
        third = await other.post(
            "/v1/responses", json={**BODY, "input": [reference, {"role": "user", "content": "so?"}]}
        )
        assert third.status_code == 200, third.text
        assert (await other.delete(f"/v1/responses/{first['id']}")).json()["deleted"]
        async with asyncio.timeout(5):
            while (await one.get(f"/v1/responses/{first['id']}")).status_code != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_a_turn_that_follows_at_once_on_another_replica_finds_the_one_before(tokenizer, store):
    async with two(tokenizer, store) as clients:
        previous = None
        for turn in range(20):
            body = {**BODY, "stream": turn % 2 == 0} | ({"previous_response_id": previous} if previous else {})
            answer = await clients[turn % 2].post("/v1/responses", json=body)
            assert answer.status_code == 200, answer.text
            previous = answer.text.partition('"id":"')[2].partition('"')[0]


@pytest.mark.anyio
async def test_a_background_response_is_seen_running_and_cancelled_from_another_replica(tokenizer, store):
    async with two(tokenizer, store, delay=0.02) as (one, other):
        started = (await one.post("/v1/responses", json={**BODY, "background": True})).json()
        await settled(other, started["id"], "in_progress")
        follows = await other.post("/v1/responses", json={**BODY, "previous_response_id": started["id"]})
        assert (follows.status_code, follows.json()["error"]["code"]) == (409, "previous_response_runs")
        assert (await other.post(f"/v1/responses/{started['id']}/cancel")).status_code == 200
        await settled(one, started["id"], "cancelled")
        await settled(other, started["id"], "cancelled")
        again = await other.post(f"/v1/responses/{started['id']}/cancel")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "cannot_cancel")


@pytest.mark.anyio
async def test_thinking_is_ended_from_another_replica(tokenizer, store):
    async with two(tokenizer, store, delay=0.02) as (one, other):
        chat = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}], "reasond": {"mode": "think"}}
        asked = asyncio.create_task(one.post("/v1/chat/completions", json=chat, headers={"x-request-id": "r1"}))
        await asyncio.sleep(0.3)
        told = await other.post("/v1/reasoning/r1/answer")
        assert (told.status_code, told.json()["asked"]) == (200, "answer")
        reply = (await asked).json()["choices"][0]
        assert reply["message"]["reasoning"].count("so") < 50
        assert (await other.post("/v1/reasoning/r1/answer")).status_code == 404


@pytest.mark.anyio
async def test_a_file_survives_a_restart(tokenizer, tmp_path):
    store = f"sqlite:{tmp_path / 'responses.db'}"
    async with replica(tokenizer, store) as client:
        kept = (await client.post("/v1/responses", json=BODY)).json()
    async with replica(tokenizer, store) as client:
        assert (await client.get(f"/v1/responses/{kept['id']}")).json() == kept
        assert (
            await client.post("/v1/responses", json={**BODY, "previous_response_id": kept["id"]})
        ).status_code == 200


@pytest.mark.anyio
async def test_a_response_whose_replica_is_gone_has_failed(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "ALIVE_SECONDS", 0.4)
    async with two(tokenizer, f"sqlite:{tmp_path / 'responses.db'}", delay=0.05) as (one, other):
        started = (await one.post("/v1/responses", json={**BODY, "background": True})).json()
        await settled(other, started["id"], "in_progress")
        one.sharing.cancel()  # it gives no sign of life any more
        failed = await settled(other, started["id"], "failed")
        assert "stopped" in failed["error"]["message"]


@needs_redis
@pytest.mark.anyio
async def test_while_redis_is_gone_replies_go_on_and_when_it_is_back_new_ones_are_kept(tokenizer, redis, caplog):
    async with two(tokenizer, f"redis://127.0.0.1:{redis.port}") as (one, other):
        before = (await one.post("/v1/responses", json=BODY)).json()
        await settled(other, before["id"], "completed")
        redis.kill()
        assert (await one.post("/v1/responses", json=BODY)).status_code == 200
        assert (await other.get(f"/v1/responses/{before['id']}")).status_code == 404
        redis.start()
        after = (await one.post("/v1/responses", json=BODY)).json()
        await settled(other, after["id"], "completed")
        assert (await other.get(f"/v1/responses/{before['id']}")).status_code == 404, "Redis kept it in memory only"
        assert "what the store should keep is lost" in caplog.text
        assert "2+3" not in caplog.text


@pytest.mark.anyio
async def test_no_key_sees_the_responses_of_another_through_the_store(tokenizer, store, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "one,two")
    async with two(tokenizer, store) as (first, second):
        mine, theirs = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        kept = (await first.post("/v1/responses", json=BODY, headers=mine)).json()
        async with asyncio.timeout(5):
            while (await second.get(f"/v1/responses/{kept['id']}", headers=mine)).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await second.get(f"/v1/responses/{kept['id']}", headers=theirs)).status_code == 404
        reference = [{"type": "item_reference", "id": kept["output"][-1]["id"]}]
        assert (
            await second.post("/v1/responses", json={**BODY, "input": reference}, headers=theirs)
        ).status_code == 400


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ('store = "sqlite:/nowhere/at/all.db"', r"^server\.store: /nowhere/at/all\.db: "),
        ('store_env = "NO_SUCH_STORE"', r"^server\.store_env: .*NO_SUCH_STORE"),
    ],
)
def test_a_store_that_cannot_be_had_is_told_at_start(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        open_responses(parse_config(f"[server]\n{settings}\n{ENGINE_AND_ROUTE}", ROOT))
    with pytest.raises(ConfigError, match=r"server\.store: "):
        parse_config(f'[server]\nstore = "mongodb://x"\n{ENGINE_AND_ROUTE}', ROOT)


@pytest.mark.anyio
async def test_verdicts_are_shared_where_a_judge_route_asks_for_it_and_by_key(tokenizer, store):
    config = parse_config(f'[server]\nstore = "{store}"\n{JUDGE}judge = {{ shared_cache = true }}\n', ROOT)
    body, asked = {"query": "more?", "replies": ["4", "5"]}, []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            engine = ScriptedEngine(tokenizer, reader := Reader(tokenizer, larger_number), name="judge")
            responses = open_responses(config)
            app = create_app(config, {"judge": engine}, store=responses)
            sharing = asyncio.create_task(responses.run(app.state.runtime.running.ask))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reasond")
            answer = (await (await stack.enter_async_context(client)).post("/v1/rewards/compare", json=body)).json()
            assert answer["winner"] == 1
            asked.append(len(reader.asked))
            await responses.flush()
            sharing.cancel()
            await asyncio.wait([sharing])
            await responses.close()
    assert asked == [1, 0]


def test_a_shared_cache_needs_a_store(tokenizer):
    config = parse_config(f"{JUDGE}judge = {{ shared_cache = true }}\n", ROOT)
    with pytest.raises(ConfigError, match=r"^routes\.judge\.judge\.shared_cache: needs server\.store"):
        create_app(config, {"judge": ScriptedEngine(tokenizer, ["5"], name="judge")})
