"""Three vLLM servers behind one engine are killed and started again in turn under load: no request is lost that had
sent nothing. Before and after, the turns of conversations find the server that has read their beginning."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.clients import Clients, chat, client, metric
from tests.processes import ROOT, free_port, reasond, vllm

MODEL = ROOT / "demo" / "hybrid"
ARGUMENTS = {"max_model_len": 2048, "block_size": 32, "kv_cache_memory_bytes": 128 * 2**20, "enforce_eager": True}
SETTINGS = """
[engines.fleet]
kind = "remote"
model = "{model}"
urls = [{urls}]
check_seconds = 0.5
[engines.alone]
kind = "remote"
model = "{model}"
url = "{first}"
[routes.fleet]
engine = "fleet"
family = "lhrm"
[routes.alone]
engine = "alone"
family = "lhrm"
"""
CONVERSATIONS, TURNS = 12, 5
KEPT = 0.9  # of the prefix hits that one server alone would have
SAID = "compute 3 + 4 and then add 5 to what you have found, please. "  # some blocks of the cache
HITS, ASKED = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"


class Server:
    """One vLLM server, which may be killed and started again."""

    def __init__(self, folder: Path, number: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.life = ExitStack()
        self._log = folder / f"server-{number}.log"

    def start(self) -> None:
        _, self.process = self.life.enter_context(vllm(MODEL, ARGUMENTS, self.port, self._log))

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.life.close()


def story(short: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [Server(folder, number) for number in range(3)]
        for server in servers:
            stack.callback(server.life.close)
            server.start()
        settings, urls = folder / "settings.toml", ", ".join(f'"{server.url}"' for server in servers)
        settings.write_text(SETTINGS.format(model=MODEL, urls=urls, first=servers[0].url))
        url, _ = stack.enter_context(reasond(settings, log=folder / "log"))
        alone = asyncio.run(_hits(url, "alone", servers, "a"))
        before = asyncio.run(_hits(url, "fleet", servers, "b"))
        told = asyncio.run(_killed_in_turn(url, servers, rounds=1 if short else 2))
        after = asyncio.run(_hits(url, "fleet", servers, "c"))
    assert min(before, after) >= KEPT * alone > 0, (alone, before, after)
    return {**told, "hits_of_one": round(alone, 3), "hits_before": round(before, 3), "hits_after": round(after, 3)}


async def _killed_in_turn(url: str, servers: Sequence[Server], rounds: int) -> dict[str, Any]:
    bodies = [chat("fleet", f"compute {n} + {n}", max_tokens=200, ignore_eos=True) for n in range(32)]
    clients = Clients(url, bodies)
    async with clients.busy(8):
        for server in [*servers] * rounds:
            await asyncio.sleep(2.0)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.start)
    lost = [one for one in clients.outcomes if one.end in ("refused", "hung", "cut")]
    assert not lost, (clients.counts(), lost[:3])
    assert all(one.first is not None for one in clients.outcomes), "an error event only behind some text"
    return {"ends": clients.counts(), "kills": len(servers) * rounds}


async def _hits(url: str, route: str, servers: Sequence[Server], salt: str) -> float:
    """The share of the prompts of conversations, held side by side, that the servers had in their caches."""
    async with client() as http:
        hits, asked = [await _total(http, servers, name) for name in (HITS, ASKED)]
        await asyncio.gather(*(_conversation(http, url, route, f"{salt}{n}: ") for n in range(CONVERSATIONS)))
        hits, asked = await _total(http, servers, HITS) - hits, await _total(http, servers, ASKED) - asked
    return hits / asked


async def _total(http: httpx.AsyncClient, servers: Sequence[Server], name: str) -> float:
    return sum([await metric(http, server.url, name) for server in servers])


async def _conversation(http: httpx.AsyncClient, url: str, route: str, salt: str) -> None:
    turns: list[dict[str, str]] = []
    for _ in range(TURNS):
        turns.append({"role": "user", "content": salt + SAID * 2})
        asked = await Clients(url, []).ask(http, chat(route, max_tokens=8) | {"messages": turns})
        assert asked.end == "whole", asked
        turns.append({"role": "assistant", "content": "12"})
