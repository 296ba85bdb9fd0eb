"""Ten times the load, arriving as it likes: what is served is as much as without it, and the rest is told to come
again. Then one greedy key against ten modest ones."""

import asyncio
import os
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.clients import Outcome, ask, chat, client
from tests.processes import ROOT, reasond

TOKENS, TOKEN_SECONDS, PLACES = 50, 0.02, 10  # a reply takes a second, ten run at once: ten a second
SETTINGS = f"""
[engines.demo]
kind = "scripted"
model = "{ROOT / "demo" / "tokenizer"}"
length = {TOKENS}
token_delay = {TOKEN_SECONDS}
[routes.plain]
engine = "demo"
family = "plain"
[routes.plain.admission]
running_tokens = {PLACES * (TOKENS + 40)}
queue_seconds = 5
running_share = 0.5
"""
MODEST, GREEDY = 10, 100


def story(short: bool) -> dict[str, Any]:
    seconds = 20.0 if short else 180.0
    keys = [f"key-{number}" for number in range(MODEST + 1)]
    os.environ["REASOND_API_KEYS"] = ",".join(keys)
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder, "settings.toml")
            settings.write_text(SETTINGS)
            with reasond(settings, log=Path(folder, "log")) as (url, process):
                capacity = asyncio.run(_offered(url, keys, 0.95, seconds))
                before = _memory(process.pid)
                flood = asyncio.run(_offered(url, keys, 10.0, seconds))
                after = _memory(process.pid)
                alone = asyncio.run(_modest(url, keys, seconds, greedy=0))
                beside = asyncio.run(_modest(url, keys, seconds, greedy=GREEDY))
    finally:
        del os.environ["REASOND_API_KEYS"]
    told = {
        "capacity": capacity,
        "flood": flood,
        "memory_growth_mib": round((after - before) / 2**20, 1),
        "modest_seconds_alone": round(alone, 3),
        "modest_seconds_beside_greedy": round(beside, 3),
    }
    assert flood["goodput"] >= 0.95 * capacity["goodput"], told
    assert flood["refused_without_retry_after"] == 0, told
    assert flood["refused_in_stream"] == 0, told
    assert after - before < 64 * 2**20, told
    assert beside <= 1.1 * alone + 0.1, told
    return told


async def _offered(url: str, keys: list[str], times: float, seconds: float) -> dict[str, Any]:
    """Poisson arrivals at so many times the capacity."""
    drawn, tasks, loop = random.Random(0), [], asyncio.get_running_loop()
    async with client() as http:
        began = loop.time()
        at = began
        while at < began + seconds:
            at += drawn.expovariate(times * PLACES / (TOKENS * TOKEN_SECONDS))
            await asyncio.sleep(max(0.0, at - loop.time()))
            tasks.append(asyncio.create_task(_one(http, url, drawn.choice(keys))))
        outcomes = await asyncio.gather(*tasks)
    whole = [one for one in outcomes if one.end == "whole"]
    refused = [one for one in outcomes if one.end == "refused"]
    in_stream = [one for one in outcomes if (one.end, one.code) == ("error event", "overloaded")]  # the loop was late
    others = [one for one in outcomes if one.end not in ("whole", "refused") and one not in in_stream]
    assert not others, others[:3]
    return {
        "goodput": round(len([one for one in whole if one.began + one.seconds < began + seconds]) / seconds, 2),
        "offered": len(outcomes),
        "refused": len(refused),
        "refused_in_stream": len(in_stream),
        "refused_without_retry_after": len([one for one in refused if not one.retry_after or one.status != 503]),
        "p99_seconds": round(statistics.quantiles([one.seconds for one in whole], n=100)[98], 2),
        "p99_refusal_seconds": round(statistics.quantiles([one.seconds for one in refused] or [0, 0], n=100)[98], 3),
    }


async def _modest(url: str, keys: list[str], seconds: float, greedy: int) -> float:
    """Mean seconds of a request of the modest keys, each of which asks for one thing at a time and then thinks."""
    drawn, over, took = random.Random(1), asyncio.Event(), []

    async def modest(http: httpx.AsyncClient, key: str) -> None:
        while not over.is_set():
            await asyncio.sleep(drawn.expovariate(1 / 4))
            outcome = await _one(http, url, key)
            assert outcome.end == "whole", outcome
            took.append(outcome.seconds)

    async def hungry(http: httpx.AsyncClient) -> None:
        while not over.is_set():
            if (await _one(http, url, keys[MODEST])).end != "whole":
                await asyncio.sleep(1)

    async with client() as http, asyncio.TaskGroup() as tasks:
        for key in keys[:MODEST]:
            tasks.create_task(modest(http, key))
        for _ in range(greedy):
            tasks.create_task(hungry(http))
        await asyncio.sleep(seconds)
        over.set()
    return statistics.mean(took)


async def _one(http: httpx.AsyncClient, url: str, key: str) -> Outcome:
    return await ask(http, url, chat("plain", max_tokens=TOKENS), {"authorization": f"Bearer {key}"})


def _memory(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
