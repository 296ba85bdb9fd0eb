"""Servers in processes of their own, on loopback: started, waited for, and ended with all their children."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


@contextmanager
def running(
    command: Sequence[str],
    ready_url: str,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
    log: Path | None = None,
    folder: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a server that answers `ready_url` with 200. Raises `RuntimeError` if it ends before it does.

    What it prints goes to `log`, or to this process's own output. It runs in `folder`.
    """
    variables = os.environ | ENVIRONMENT | dict(environment or {})
    with log.open("wb") if log else nullcontext() as output:
        process = subprocess.Popen(
            command, env=variables, cwd=folder, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        try:
            wait_until_ready(ready_url, process, seconds)
        except (RuntimeError, TimeoutError) as error:
            if log:
                error.add_note(log.read_text()[-2000:])
            raise
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def members(leader: int) -> dict[int, float]:
    """Processor time of each living process of the session that this process leads: a server with its engines."""
    found: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == leader and fields[0] != "Z":
            found[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def session_seconds(leader: int) -> float:
    """Processor time of all of them."""
    return sum(members(leader).values())


@contextmanager
def reasond(
    config: Path, port: int | None = None, log: Path | None = None, tree: Path = ROOT, seconds: float = 300
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`reasond serve` for a configuration, out of one source tree: its root URL and its process."""
    port = port or free_port()
    command = [sys.executable, "-m", "server.cli", "serve", str(config), "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/ready", {"PYTHONPATH": str(tree)}, seconds, log, tree) as process:
        yield url, process


@contextmanager
def vllm(
    model: Path, arguments: Mapping[str, Any], port: int | None = None, log: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """vLLM's own OpenAI server, which serves the model as `demo`. An argument that is True is a bare flag."""
    port = port or free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-extension-cls", "models.engines.vllm_worker.TakesWeights"]  # see there
    command += ["--model", str(model), "--served-model-name", "demo", "--disable-uvicorn-access-log"]
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        told = json.dumps(value) if isinstance(value, Mapping) else str(value)
        command += [option] if value is True else [option, told]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/health", log=log) as process:
        yield url, process


class Redis:
    """A Redis server, which may be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            ping = ["redis-cli", "-p", str(self.port), "ping"]
            if subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n":
                return
            time.sleep(0.02)
        raise AssertionError("Redis does not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def nginx(servers: Sequence[str], folder: Path) -> Iterator[str]:
    """nginx as deploy/nginx.conf has it, but before these servers, in turn: its root URL."""
    port, settings = free_port(), folder / "nginx.conf"
    text = (ROOT / "deploy" / "nginx.conf").read_text().replace("listen 8080", f"listen 127.0.0.1:{port}")
    listed = "".join(f"server {url.removeprefix('http://')};\n" for url in servers)
    text = re.sub(r"least_conn;.*\n(\s*server .*\n)+", listed, text)
    settings.write_text(f"pid {folder}/nginx.pid;\nuser root;\n{text}")
    with running(["nginx", "-c", str(settings), "-g", "daemon off;"], f"http://127.0.0.1:{port}/version"):
        yield f"http://127.0.0.1:{port}"


def wait_until_ready(url: str, process: subprocess.Popen[Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise TimeoutError(f"{url} did not answer within {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
