"""The engine under 32 streams is killed, and frozen, again and again: nobody hangs, and the next answer comes within
one start of an engine. Before that the server itself is killed, again and again: nothing of it lives on."""

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.clients import Clients, chat, client
from tests.processes import ROOT, free_port, members, reasond

STALL_SECONDS = 15
SETTINGS = f"""
[engines.demo]
kind = "vllm"
model = "{ROOT / "demo" / "hybrid"}"
args = {{ max_model_len = 1024, block_size = 32, kv_cache_memory_bytes = 134217728, enforce_eager = true }}
supervision = {{ restarts = 100, stall_seconds = {STALL_SECONDS}, wait_seconds = 200 }}
[engines.small]
kind = "scripted"
model = "{ROOT / "demo" / "tokenizer"}"
replies = ["One. Wait, no.\\n\\nTwo. Wait, no.\\n\\nThree.</think>two"]
token_delay = 0.02
[routes.plain]
engine = "demo"
family = "lhrm"
[routes.budget]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = {{ default = 40 }}
[routes.judge]
engine = "demo"
family = "lhrm"
controller = "judge"
[routes.pair]
controller = "speculative"
engine = "small"
family = "lhrm"
mode = "think"
speculative = {{ target = "demo", rest_seconds = 1 }}
"""
BODIES = [
    chat("plain", max_tokens=300, ignore_eos=True),
    chat("budget", max_tokens=300, ignore_eos=True),
    chat("judge", max_tokens=200),
    chat("pair", max_tokens=300),
]


def story(short: bool) -> dict[str, Any]:
    kills, freezes, servers = (2, 1, 2) if short else (20, 5, 10)
    port, orphans = free_port(), []
    with tempfile.TemporaryDirectory() as folder:
        settings, log = Path(folder, "settings.toml"), Path(folder, "log")
        settings.write_text(SETTINGS)
        for _ in range(servers):
            with reasond(settings, port, log=log) as (url, process):
                orphans.append(asyncio.run(_killed_under_load(url, process)))
        began = time.monotonic()
        with reasond(settings, port, log=log) as (url, process):
            start = time.monotonic() - began
            try:
                told = asyncio.run(_ended(url, process, ["kill"] * kills + ["freeze"] * freezes, start))
            except AssertionError:
                print(log.read_text()[-4000:])
                raise
    return {"start_seconds": round(start, 1), **told, "servers_killed": servers, "orphans_gone_seconds": orphans}


async def _killed_under_load(url: str, process: subprocess.Popen[bytes]) -> float:
    clients = Clients(url, BODIES)
    async with clients.busy(32):
        await _until(lambda: clients.streaming >= 16, 300)
        return await asyncio.to_thread(_killed_server, process)


async def _ended(url: str, process: subprocess.Popen[bytes], ways: list[str], start: float) -> dict[str, Any]:
    clients, recoveries = Clients(url, BODIES), []
    async with clients.busy(32):
        for way in ways:
            await _until(lambda: clients.streaming >= 16, 300)
            for victim in victims(process.pid, way):
                os.kill(victim, signal.SIGKILL if way == "kill" else signal.SIGSTOP)
            recoveries.append(await _recovery(url))
    ends = clients.counts()
    assert not any(one.end in ("hung", "cut") for one in clients.outcomes), ends
    assert all(one.code in ("", "engine_dead", "engine_restarting") for one in clients.outcomes), ends
    allowed = 3 * start + STALL_SECONDS + 10  # the machine is loaded while an engine starts again
    assert max(recoveries) < allowed, recoveries
    pair = [one for one in clients.outcomes if one.route == "pair"]
    assert all(one.end == "whole" for one in pair), "the small model goes on alone"
    return {"ends": ends, "recovery_seconds": [round(one, 1) for one in recoveries], "pair_whole": len(pair)}


def victims(server: int, way: str) -> list[int]:
    """vLLM's core, and to freeze it its worker as well."""
    found = {}
    for process in members(server):
        name = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if "EngineCore" in name or "Worker" in name:
            found[process] = name
    return [process for process, name in found.items() if way == "freeze" or "EngineCore" in name]


async def _recovery(url: str) -> float:
    """Seconds until the plain route answers a new request whole."""
    began = time.monotonic()
    async with client() as http:
        while time.monotonic() - began < 300:
            asked = Clients(url, [])
            if (await asked.ask(http, chat("plain", max_tokens=1))).end == "whole" and await _settled(http, url):
                return time.monotonic() - began
            await asyncio.sleep(0.1)
    raise AssertionError("the engine has not come back")


async def _settled(http: httpx.AsyncClient, url: str) -> bool:
    return (await http.get(f"{url}/ready")).status_code == 200


async def _until(happened: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


def _killed_server(process: subprocess.Popen[bytes]) -> float:
    """Kills the server; what it started must be gone within five seconds. How many it took."""
    process.kill()
    process.wait()
    began = time.monotonic()
    while members(process.pid) and time.monotonic() - began < 20:
        time.sleep(0.02)
    seconds = time.monotonic() - began
    assert seconds < 5, members(process.pid)
    return round(seconds, 2)
