"""A thousand requests at concurrency 64, a third of which leave midway, over the demo model in a real vLLM engine."""

import asyncio

import httpx
import pytest

from tests.wire.storm import MIB, ROOT, body_of, nothing_left, reasond_serve, weathered

pytestmark = [pytest.mark.e2e, pytest.mark.accept]


# vLLM's own count of its requests; and a cache so small that the warm-up touches every page of it: pages of the cache
# become resident as they are first used, which would look like a leak.
ARGUMENTS = f"args = {{ disable_log_stats = false, kv_cache_memory_bytes = {32 * MIB},"


def test_a_storm_of_requests_and_departures_leaves_nothing_in_vllm(tmp_path):
    demo = (ROOT / "configs/demo.toml").read_text()
    assert demo.count("args = {") == 1
    (tmp_path / "demo.toml").write_text(demo.replace("args = {", ARGUMENTS))
    with reasond_serve(tmp_path / "demo.toml") as server:
        assert "vllm:num_requests_running" in httpx.get(server.url + "/metrics").text
        before, outcomes, after = asyncio.run(weathered(server, requests=1000, warm_up=1000, tokens=100))
        last = httpx.post(server.url + "/v1/chat/completions", json=body_of(1, tokens=10), timeout=60)
    nothing_left(before, outcomes, after, requests=1000, memory=8 * MIB, worker_memory=128 * MIB)
    assert last.status_code == 200
