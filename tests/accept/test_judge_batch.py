"""Ten thousand comparisons by a real judge, interrupted: by the client's death, and by the server's end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from demo.tasks import TASKS
from tests.processes import free_port, reasond
from training.data.questions import draw

pytestmark = pytest.mark.accept

ITEMS = 10_000
CONCURRENCY = 64
MEBIBYTE = 2**20
CONFIG = f"""
[server]
drain_seconds = 20

[engines.judge]
kind = "vllm"
model = "demo/judge"
args = {{ max_model_len = 512, block_size = 32, max_num_seqs = 64 }}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1" }}

[routes.judge]
engine = "judge"
family = "lhrm"
mode = "think"
controller = "judge"
sampling = {{ temperature = 1.0, max_tokens = 96 }}

[routes.judge.judge]
family = "rrm_short"
concurrency = {CONCURRENCY}
cache_size = 0
"""
CLIENT = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], open(sys.argv[2], "rb").read(), {"content-type": "application/json"})
with urllib.request.urlopen(request) as answer, open(sys.argv[3], "wb") as file:
    while piece := answer.read1(65536):
        file.write(piece)
        file.flush()
"""


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    config = tmp_path / "judge.toml"
    config.write_text(CONFIG)
    with reasond(config, free_port()) as running:
        yield running


@pytest.fixture
def body(tmp_path) -> Path:
    rng = Random(1)
    items = []
    for _ in range(ITEMS):
        question = draw(TASKS["chain"], rng.randint(2, 6), "test", rng)
        items.append({"query": question.text, "replies": rng.sample("0123456789", 2)})
    path = tmp_path / "body.json"
    path.write_text(json.dumps({"items": items}))
    return path


def ask(url: str, body: Path, answer: Path) -> subprocess.Popen[bytes]:
    """A client in a process of its own that writes down what comes."""
    return subprocess.Popen([sys.executable, "-c", CLIENT, f"{url}/v1/rewards/compare", body, answer])


def until(so: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def judged(answer: Path) -> int:
    """How many results have been sent."""
    return answer.read_bytes().count(b'"winner"') if answer.exists() else 0


def held(url: str) -> float:
    """What the engine says it holds."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    (line,) = (line for line in text.splitlines() if line.startswith('reasond:engine_requests{engine="judge"}'))
    return float(line.split()[-1])


def resident(pid: int) -> int:
    """Bytes of the server process's memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_is_killed_leaves_engine_and_memory_as_they_were(server, body, tmp_path):
    url, process = server
    sizes = []
    for number in range(3):  # the first one warms the server up
        answer = tmp_path / f"answer-{number}"
        client = ask(url, body, answer)
        until(lambda answer=answer: judged(answer) >= 200, 600)
        assert 0 < held(url) <= CONCURRENCY
        assert judged(answer) < ITEMS
        client.send_signal(signal.SIGKILL)
        client.wait()
        until(lambda: held(url) == 0, 10)
        sizes.append(resident(process.pid))
    print(f"\nresident MiB after each: {[round(size / MEBIBYTE, 1) for size in sizes]}")
    assert max(sizes[1:]) <= sizes[0] + 24 * MEBIBYTE, "about a batch's body, parsed"
    one = {"query": "Start with 2, then a*3 b-2. What is the last digit?", "replies": ["4", "9"]}
    assert httpx.post(f"{url}/v1/rewards/compare", json=one, timeout=60).status_code == 200


def test_a_server_that_is_told_to_stop_ends_the_batch_and_names_what_was_not_judged(server, body, tmp_path):
    url, process = server
    answer = tmp_path / "answer"
    client = ask(url, body, answer)
    until(lambda: judged(answer) >= 200, 600)
    process.send_signal(signal.SIGTERM)
    assert client.wait(60) == 0
    assert process.wait(60) == 0
    told = json.loads(answer.read_bytes())
    assert len(told["results"]) == ITEMS
    assert told["failed"] == len(told["not_judged"])
    assert told["judged"] + told["failed"] == ITEMS
    assert told["not_judged"] == [one["index"] for one in told["results"] if "error" in one]
    print(f"\n{told['judged']} judged, {told['failed']} named")
    assert 200 <= told["judged"] < ITEMS
