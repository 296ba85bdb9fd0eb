"""`reasond serve MODEL` on the real engine: one command, an answer, and one line where it cannot start."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import ENGINE_ENV, ROOT
from tests.families.corpus import corpus
from tests.server.checkpoints import CONTEXT, write_qwen3

pytestmark = [pytest.mark.accept, pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))]
SERVE = [sys.executable, "-m", "server.cli", "serve"]
PIPES = {"cwd": ROOT, "env": {**os.environ, **ENGINE_ENV}, "text": True}


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    return write_qwen3(tmp_path_factory.mktemp("models") / "Qwen3-0.6B")


@contextmanager
def served(*command: str) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """What a server says when it is ready."""
    process = subprocess.Popen([*SERVE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **PIPES)
    assert process.stdout is not None
    try:
        yield [process.stdout.readline().strip() for _ in range(3)], process
    finally:
        process.kill()
        process.communicate()


def cards(ready: list[str]) -> list[dict[str, object]]:
    listed = httpx.get(re.findall(r"http://\S+/v1", ready[0])[0] + "/models").json()["data"]
    return [{name: value for name, value in card.items() if name != "created"} for card in listed]


def test_a_model_is_served_by_one_command_and_by_the_file_that_it_prints(qwen3, tmp_path):
    asked = [str(qwen3), "--served-model-name", "mine", "other", "--port", "0", "--max-num-seqs", "4"]
    with served(*asked) as (ready, process):
        assert ready[1] == "mine, other: family qwen3; modes think, no_think (default think)"
        answer = json.loads(subprocess.run(["bash", "-c", ready[2]], capture_output=True, check=True).stdout)
        assert answer["usage"]["completion_tokens"] > 0
        assert answer["reasond"]["mode"] == "think"
        first = cards(ready)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [card["id"] for card in first] == ["mine", "other"]
    assert first[0]["max_model_len"] == CONTEXT
    assert all(re.match(r"[-\d]+ [:,\d]+ (INFO|WARNING) (server|models)\.", line) for line in err.splitlines()), err
    printed = subprocess.run([*SERVE, *asked, "--print-config"], capture_output=True, check=True, **PIPES).stdout
    (tmp_path / "printed.toml").write_text(printed)
    with served(str(tmp_path / "printed.toml")) as (ready, _):
        assert cards(ready) == first


def test_what_a_process_of_the_engine_dies_of_is_one_line(qwen3):
    command = [*SERVE, str(qwen3), "--port", "0", "--kv-cache-memory-bytes", "4k", "--max-model-len", str(CONTEXT)]
    ended = subprocess.run(command, capture_output=True, check=False, **PIPES)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert re.match(r"engines\.main: \w+Error: .*KV cache", ended.stderr.splitlines()[-1]), ended.stderr
