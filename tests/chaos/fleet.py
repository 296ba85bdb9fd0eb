"""Three servers behind one engine are killed and started again in turn under load: no request is lost that had sent
nothing, and the turns of a conversation find their server again."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.chaos.clients import Clients, chat
from tests.processes import ROOT, free_port, reasond, wait_until_ready

SETTINGS = """
[engines.far]
kind = "remote"
model = "{tokenizer}"
urls = [{urls}]
check_seconds = 0.5
[routes.plain]
engine = "far"
family = "lhrm"
"""


class Server:
    """One server that speaks vLLM's completions, in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.vllm_like", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_ready(f"{self.url}/health", self.process, 60)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def story(short: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        servers = [Server() for _ in range(3)]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = Path(folder, "settings.toml")
        urls = ", ".join(f'"{server.url}"' for server in servers)
        settings.write_text(SETTINGS.format(tokenizer=ROOT / "demo" / "tokenizer", urls=urls))
        url, _ = stack.enter_context(reasond(settings, log=Path(folder, "log")))
        return asyncio.run(_killed_in_turn(url, servers, rounds=1 if short else 7))


async def _killed_in_turn(url: str, servers: Sequence[Server], rounds: int) -> dict[str, Any]:
    clients = Clients(url, [chat("plain", f"what is {n}+{n}?", max_tokens=200) for n in range(32)])
    async with clients.busy(32):
        for server in [*servers] * rounds:
            await asyncio.sleep(2.0)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.start)
    ends = clients.counts()
    lost = [one for one in clients.outcomes if one.end in ("refused", "hung", "cut")]
    assert not lost, (ends, lost[:3])
    assert all(one.first is not None for one in clients.outcomes), "an error event only behind some text"
    return {"ends": ends, "kills": 3 * rounds}
