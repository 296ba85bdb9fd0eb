"""SIGTERM in the middle of everything: what ends within the drain is whole, what does not is told so, and what ran in
the background is found again after a restart, whole or named as cut off."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.chaos.clients import client, created, lines, metric
from tests.processes import ROOT, free_port, reasond

DRAIN_SECONDS, TOKEN_SECONDS = 6.0, 0.02
SHORT, LONG = 150, 1500  # tokens: three seconds and thirty
SPARE_SECONDS = 20.0  # for what is cut to be told, and the process to end, on a busy machine
SETTINGS = """
[server]
drain_seconds = {drain}
store = "sqlite:{store}"
[engines.demo]
kind = "scripted"
model = "{tokenizer}"
length = {long}
token_delay = {delay}
[engines.votes]
kind = "scripted"
model = "{tokenizer}"
replies = ["<think>so</think>\\\\boxed{{Assistant 1}}"]
token_delay = {delay}
[routes.demo]
engine = "demo"
family = "plain"
[routes.judge]
engine = "votes"
family = "lhrm"
controller = "judge"
judge = {{ concurrency = 2 }}
"""


def story(short: bool) -> dict[str, Any]:
    port, told, took = free_port(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.toml")
        settings.write_text(
            SETTINGS.format(
                drain=DRAIN_SECONDS,
                store=Path(folder, "responses.db"),
                tokenizer=ROOT / "demo" / "tokenizer",
                long=LONG,
                delay=TOKEN_SECONDS,
            )
        )
        log = Path(folder, "log")
        runs: list[str] = []
        for _ in range(2 if short else 10):
            with reasond(settings, port, log=log) as (url, process):
                told += _found_again(url, runs)
                outcomes, seconds, runs = asyncio.run(_stopped(url, process))
            told += outcomes
            took.append(round(seconds, 1))
            assert process.returncode == 0
            assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
            assert all(one in log.read_text() for one in runs[1::2]), "those that were cut are named"
        with reasond(settings, port, log=log) as (url, _):
            told += _found_again(url, runs)
    return {"told": dict(sorted(told.items())), "seconds_to_end": took, "drain_seconds": DRAIN_SECONDS}


async def _stopped(url: str, process: subprocess.Popen[bytes]) -> tuple[Counter[str], float, list[str]]:
    """What became of everything that ran when SIGTERM came, how long the process lived on, and what ran unattended."""
    async with client() as http:
        bodies = [_response(tokens, background=True) for tokens in (SHORT, LONG) * 4]
        runs = [(await created(http, url, body))["id"] for body in bodies]
        asking = [asyncio.create_task(ask(http, url, tokens)) for ask in ASKING for tokens in (SHORT, LONG) * 4]
        asking.append(asyncio.create_task(_batch(http, url)))
        async with asyncio.timeout(30):
            while await metric(http, url, "reasond:engine_requests") < len(asking) + len(runs):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        outcomes = await asyncio.gather(*asking)
        await asyncio.to_thread(process.wait, 60)
        seconds = time.monotonic() - began
    assert seconds < DRAIN_SECONDS + SPARE_SECONDS, seconds
    return Counter(outcomes), seconds, runs


async def _streamed(http: httpx.AsyncClient, url: str, path: str, body: dict[str, Any], tokens: int) -> str:
    text = "\n".join([line async for line in lines(http, url + path, body)])
    cut, name = "server_stopping" in text, path.rpartition("/")[2]
    assert cut == (tokens == LONG), (path, tokens, text[-300:])
    return f"{name} stream {'told that it is cut' if cut else 'whole'}"


async def _chat_stream(http: httpx.AsyncClient, url: str, tokens: int) -> str:
    return await _streamed(http, url, "/v1/chat/completions", _chat(tokens), tokens)


async def _messages_stream(http: httpx.AsyncClient, url: str, tokens: int) -> str:
    return await _streamed(http, url, "/v1/messages", _chat(tokens), tokens)


async def _responses_stream(http: httpx.AsyncClient, url: str, tokens: int) -> str:
    return await _streamed(http, url, "/v1/responses", _response(tokens), tokens)


async def _whole(http: httpx.AsyncClient, url: str, tokens: int) -> str:
    answer = await http.post(f"{url}/v1/chat/completions", json=_chat(tokens))
    if tokens == LONG:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_stopping"), answer.text
        return "chat told that it is cut"
    assert answer.status_code == 200, answer.text
    return "chat whole"


async def _batch(http: httpx.AsyncClient, url: str) -> str:
    """A batch of verdicts that is too long: what was judged is there, and the rest is named."""
    items = [{"query": f"{number}", "replies": ["4", "5"]} for number in range(2000)]
    answer = await http.post(f"{url}/v1/rewards/compare", json={"model": "judge", "items": items})
    told = orjson.loads(answer.content)
    assert told["judged"] and len(told["not_judged"]) + told["judged"] == len(items), str(told)[-300:]
    return "batch named what it did not judge"


ASKING = (_chat_stream, _messages_stream, _responses_stream, _whole)


def _chat(tokens: int) -> dict[str, Any]:
    return {"model": "demo", "max_tokens": tokens, "messages": [{"role": "user", "content": "go on"}]}


def _response(tokens: int, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "max_output_tokens": tokens, "input": "go on", **fields}


def _found_again(url: str, runs: list[str]) -> Counter[str]:
    """The background runs of the server that was stopped, as the next one knows them."""
    found: Counter[str] = Counter()
    for number, one in enumerate(runs):
        body = httpx.get(f"{url}/v1/responses/{one}", timeout=30, trust_env=False).json()
        if number % 2:
            assert body["status"] == "failed" and "the server stopped" in body["error"]["message"], body
        else:
            assert body["status"] in ("completed", "incomplete"), body
        found[f"background {'named as cut' if number % 2 else 'whole'}"] += 1
    return found
