"""Two replicas on Redis behind nginx, in turn: the whole life of responses, cancel and answer-now, wherever they are
asked for. Then Redis is killed and comes back, and a replica is killed: what is lost is said."""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.clients import created, lines
from tests.processes import ROOT, Redis, nginx, reasond

TOKEN_SECONDS = 0.02
THOUGHT = 200  # tokens: seconds in which another connection may come in between
SETTINGS = """
[server]
store = "redis://127.0.0.1:{redis}/0"
drain_seconds = 1
[engines.demo]
kind = "scripted"
model = "{tokenizer}"
replies = ["<think>{thought}</think>five"]
token_delay = {seconds}
[routes.demo]
engine = "demo"
family = "lhrm"
loop = {{ enabled = false }}
"""
ASKED = {"model": "demo", "input": "2+3"}
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}]}
AT_ONCE = 16
BACK_SECONDS = 5.0  # for the replicas to find a store that is back
GONE_SECONDS = 15.0  # for a replica to be known as gone


def story(short: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = Redis()
        redis.start()
        stack.callback(redis.kill)
        settings, thought = folder / "settings.toml", "so " * THOUGHT
        tokenizer = ROOT / "demo" / "tokenizer"
        text = SETTINGS.format(redis=redis.port, tokenizer=tokenizer, thought=thought, seconds=TOKEN_SECONDS)
        settings.write_text(text)
        first, _ = stack.enter_context(reasond(settings, log=folder / "first"))
        second, victim = stack.enter_context(reasond(settings, log=folder / "second"))
        url = stack.enter_context(nginx([first, second], folder))
        lives = asyncio.run(_lives(url, rounds=2 if short else 20))
        lost = asyncio.run(_store_lost(url, redis, [first, second]))
        log = (folder / "first").read_text() + (folder / "second").read_text()
        assert "what the store should keep is lost: Redis" in log
        victim_gone = asyncio.run(_replica_lost(url, first, second, victim.kill))
        return {**lives, **lost, **victim_gone}


async def _lives(url: str, rounds: int) -> dict[str, Any]:
    """Every part of the life of a response, many at once: each request meets the one replica or the other."""
    began, parts = time.monotonic(), [_kept, _streamed, _background, _cancelled, _answered, _ended]
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for _ in range(rounds):
            await asyncio.gather(*(part(http, number) for number in range(AT_ONCE) for part in parts))
    return {"lives": rounds * AT_ONCE * len(parts), "lives_seconds": round(time.monotonic() - began, 1)}


async def _kept(http: httpx.AsyncClient, number: int) -> None:
    first = await created(http, "", ASKED)
    for _ in range(2):
        assert (await http.get(f"/v1/responses/{first['id']}")).json() == first
    assert (await http.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
    second = await created(http, "", {**ASKED, "previous_response_id": first["id"]})
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    reference = {"type": "item_reference", "id": first["output"][-1]["id"]}
    await created(http, "", {**ASKED, "input": [reference, {"role": "user", "content": "so?"}]})
    assert (await http.delete(f"/v1/responses/{first['id']}")).json()["deleted"]
    await _until_status(http, first["id"], None)


async def _streamed(http: httpx.AsyncClient, number: int) -> None:
    events = [line async for line in lines(http, "/v1/responses", ASKED)]
    assert any("response.completed" in line for line in events), events[-3:]
    response_id = next(line for line in events if '"resp_' in line).partition('"id":"')[2].partition('"')[0]
    assert (await http.get(f"/v1/responses/{response_id}")).status_code == 200


async def _background(http: httpx.AsyncClient, number: int) -> None:
    queued = await created(http, "", {**ASKED, "background": True})
    assert queued["status"] in ("queued", "in_progress"), queued
    ended = await _until_status(http, queued["id"], "completed")
    assert ended["output"]


async def _cancelled(http: httpx.AsyncClient, number: int) -> None:
    queued = await created(http, "", {**ASKED, "background": True})
    await asyncio.sleep(THOUGHT * TOKEN_SECONDS / 4)
    answer = await http.post(f"/v1/responses/{queued['id']}/cancel")
    assert answer.status_code == 200, answer.text
    await _until_status(http, queued["id"], "cancelled")


async def _answered(http: httpx.AsyncClient, number: int) -> None:
    """The thinking is ended from another connection: the answer follows, long before the thought would have ended."""
    assert await _interrupted(http, f"answer-{number}", "answer") < THOUGHT


async def _ended(http: httpx.AsyncClient, number: int) -> None:
    assert await _interrupted(http, f"cancel-{number}", "cancel") < THOUGHT


async def _interrupted(http: httpx.AsyncClient, request_id: str, wish: str) -> int:
    """Events with thinking of a stream that another connection ends midway."""
    seen = []
    async for line in lines(http, "/v1/chat/completions", CHAT, {"x-request-id": request_id}):
        seen.append(line)
        if len(seen) == THOUGHT // 4:
            asked = await http.post(f"/v1/reasoning/{request_id}/{wish}")
            assert asked.status_code == 200, asked.text
    assert seen[-1] == "data: [DONE]"
    return len([line for line in seen if '"reasoning' in line])


async def _store_lost(url: str, redis: Redis, replicas: list[str]) -> dict[str, Any]:
    """While Redis is gone replies go on; what was kept is lost with it; when it is back all is as before."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        before = await created(http, "", ASKED)
        await asyncio.to_thread(redis.kill)
        during = await asyncio.gather(*(created(http, "", ASKED) for _ in range(AT_ONCE)))
        unknown = await http.get(f"/v1/responses/{before['id']}")
        assert unknown.status_code == 404, unknown.text
        follow = await http.post("/v1/responses", json={**ASKED, "previous_response_id": before["id"]})
        assert (follow.status_code, follow.json()["error"]["code"]) == (404, "previous_response_not_found")
        for _ in range(2):
            assert len([line async for line in lines(http, "/v1/chat/completions", CHAT)]) > THOUGHT
        for replica in replicas:
            assert (await http.get(f"{replica}/ready")).status_code == 200
        await asyncio.to_thread(redis.start)
        began, back = time.monotonic(), None
        while back is None:
            found = await created(http, "", ASKED)
            seen = [(await http.get(f"{replica}/v1/responses/{found['id']}")).status_code for replica in replicas]
            if seen == [200, 200]:
                back = time.monotonic() - began
            assert time.monotonic() - began < BACK_SECONDS + 2, seen
        lost = [one for one in (before, *during) if (await http.get(f"/v1/responses/{one['id']}")).status_code == 404]
        await _lives(url, rounds=1)
    return {"made_without_store": len(during), "lost_with_store": len(lost), "store_back_seconds": round(back, 2)}


async def _replica_lost(url: str, left: str, gone: str, kill: Any) -> dict[str, Any]:
    """What ran in the background on a replica that is killed is failed, and the other one says so."""
    async with httpx.AsyncClient(timeout=60) as http:
        slow = {**ASKED, "background": True}
        runs = [(await http.post(f"{gone}/v1/responses", json=slow)).json()["id"] for _ in range(4)]
        await asyncio.sleep(THOUGHT * TOKEN_SECONDS / 4)
        kill()
        began = time.monotonic()
        outcomes = [await _until_status(http, f"{one}", "failed", root=left) for one in runs]
        assert all(one["error"]["message"] == "the server that ran this response has stopped" for one in outcomes)
        seconds = time.monotonic() - began
        whole = [(await http.post(f"{url}/v1/responses", json=ASKED)).status_code for _ in range(8)]
        assert whole == [200] * 8, whole
    return {"background_of_the_dead_failed": len(runs), "known_after_seconds": round(seconds, 1)}


async def _until_status(http: httpx.AsyncClient, response_id: str, status: str | None, root: str = "") -> Any:
    """The response when it has come to this status; None: when it is gone."""
    async with asyncio.timeout(GONE_SECONDS + THOUGHT * TOKEN_SECONDS):
        while True:
            answer = await http.get(f"{root}/v1/responses/{response_id}")
            if answer.status_code == 404 and status is None:
                return None
            assert answer.status_code == 200 or status is None, answer.text
            if answer.status_code == 200 and answer.json()["status"] == status:
                return answer.json()
            await asyncio.sleep(0.05)
