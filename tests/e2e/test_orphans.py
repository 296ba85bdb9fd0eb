"""A server that is killed leaves nothing behind: neither vLLM's processes nor its port."""

import time
from pathlib import Path

import pytest

from server.serve import require_free_port
from tests.processes import ROOT, free_port, members, reasond

SETTINGS = f"""
[engines.demo]
kind = "vllm"
model = "{ROOT / "demo" / "hybrid"}"
args = {{ max_model_len = 1024, block_size = 32, kv_cache_memory_bytes = 134217728, enforce_eager = true }}
[routes.demo]
engine = "demo"
family = "lhrm"
"""


@pytest.mark.e2e
def test_nothing_of_a_server_that_is_killed_lives_on(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    port = free_port()
    with reasond(tmp_path / "settings.toml", port, tmp_path / "log") as (_, process):
        started = members(process.pid)
        assert len(started) >= 3, "the server, an engine core and its worker"
        process.kill()
        process.wait()
        began = time.monotonic()
        while members(process.pid) and time.monotonic() - began < 20:
            time.sleep(0.05)
        assert time.monotonic() - began < 5
        require_free_port("127.0.0.1", port)
