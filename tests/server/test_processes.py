"""Several processes on one port are one server: for clients, for those who measure it, and for those who stop it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from models.engines import KeptVllmEngineConfig
from server.config.load import ConfigError, parse_config
from server.observability.summed import summed
from server.processes import _shared
from tests.processes import members, reasond
from tests.server.conftest import ROOT

COUNT = 3
SETTINGS = f"""
[server]
processes = {COUNT}
drain_seconds = 2
[engines.demo]
kind = "scripted"
model = "{ROOT / "demo" / "tokenizer"}"
replies = ["<think>{"so " * 100}</think>five"]
token_delay = 0.02
[routes.demo]
engine = "demo"
family = "lhrm"
"""
NOWHERE = 'url = "http://127.0.0.1:9"\n[routes.demo]\nengine = "demo"\nfamily = "lhrm"\n'
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}]}


def test_the_processes_of_one_port_are_one_server(tmp_path: Path):
    settings, log = tmp_path / "settings.toml", tmp_path / "log"
    settings.write_text(SETTINGS)
    with reasond(settings, log=log) as (url, process):
        assert asyncio.run(_asked(url)) == 12
        (victim, *_) = sorted(members(process.pid).keys() - {process.pid})
        os.kill(victim, signal.SIGKILL)
        until(lambda: "another is started" in log.read_text() and len(members(process.pid)) == COUNT + 1)
        assert asyncio.run(_asked(url)) >= 12
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not members(process.pid)


def test_what_keeps_all_of_them_from_starting_is_told_once(tmp_path: Path):
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS.replace('"scripted"', '"remote"').partition("replies")[0] + NOWHERE)
    command = [sys.executable, "-m", "server.cli", "serve", str(settings), "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    faults = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert (ended.returncode, len(faults)) == (2, 1) and faults[0].startswith("engines.demo: "), ended.stderr


def test_none_of_them_outlives_the_one_that_watches(tmp_path: Path):
    (tmp_path / "settings.toml").write_text(SETTINGS)
    with reasond(tmp_path / "settings.toml", log=tmp_path / "log") as (_, process):
        assert len(members(process.pid)) == COUNT + 1
        process.kill()
        process.wait()
        until(lambda: not members(process.pid))


async def _asked(url: str) -> float:
    """What the server counts when each of a dozen responses has been found again, and ended from elsewhere."""
    limits = httpx.Limits(max_keepalive_connections=0)  # each request meets whichever process
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:

        async def one(number: int) -> None:
            made = (await http.post("/v1/responses", json={"model": "demo", "input": "2+3", "background": True})).json()
            ended = await http.post(f"/v1/responses/{made['id']}/cancel")
            assert ended.status_code == 200, ended.text
            assert (await http.get(f"/v1/responses/{made['id']}")).status_code == 200

        await asyncio.gather(*map(one, range(12)))
        lines = (await http.get("/metrics")).text.splitlines()
    (running,) = [line for line in lines if line.startswith("reasond:engine_up{")]
    assert running.endswith(" 1.0")
    counted = [float(line.split()[-1]) for line in lines if line.startswith("reasond:requests_total{")]
    return sum(counted)


def until(happened, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_metrics_are_added_up_but_what_says_how_something_is():
    one = """# TYPE reasond:requests counter
reasond:requests_total{route="a"} 2.0
# TYPE reasond:engine_up gauge
reasond:engine_up{engine="e"} 1.0
# TYPE reasond:route_degraded gauge
reasond:route_degraded{route="a"} 0.0
# TYPE reasond:engine_ends counter
reasond:engine_ends_total{engine="e"} 1.0
"""
    other = (
        one.replace("2.0", "3.0")
        .replace('engine="e"} 1.0', 'engine="e"} 0.0')
        .replace('d{route="a"} 0', 'd{route="a"} 1')
    )
    lines = [line for line in summed([one, other, ""]).decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'reasond:requests_total{route="a"} 5.0',
        'reasond:engine_up{engine="e"} 0.0',
        'reasond:route_degraded{route="a"} 1.0',
        'reasond:engine_ends_total{engine="e"} 1.0',
    ]


def test_each_process_has_its_share_of_the_limits_and_the_store_and_seal_of_all(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("REASOND_STORE", raising=False)
    limits = "admission = { running_tokens = 300, queue_tokens = 1000 }\n[keys.a]\nmax_requests = 4\n"
    config = _shared(parse_config(SETTINGS + limits, ROOT), tmp_path, 8000)
    assert config.routes["demo"].admission.running_tokens == 100
    assert config.routes["demo"].admission.queue_tokens == 334
    assert (config.keys["a"].max_requests, config.keys["a"].tokens_per_minute) == (2, 0)
    assert config.server.store == f"sqlite:{tmp_path}/responses.db" and config.server.port == 8000
    assert len(config.server.seal_key.get_secret_value()) == 32


def test_engines_of_this_machine_are_run_by_keepers_and_each_other_kind_by_each_process(tmp_path: Path):
    engine = '[engines."a/b"]\nkind = "vllm"\nmodel = "demo/hybrid"\nargs = { max_num_seqs = 8 }\n'
    shared = _shared(parse_config(SETTINGS + engine, ROOT), tmp_path, 8000).engines
    assert shared["demo"] == parse_config(SETTINGS, ROOT).engines["demo"]
    kept = shared["a/b"]
    assert isinstance(kept, KeptVllmEngineConfig) and kept.args == {"max_num_seqs": 8}
    assert Path(kept.keeper).parent == tmp_path


def test_several_processes_do_not_share_an_engine_that_spreads_requests_itself():
    engine = '[engines.demo]\nkind = "vllm"\nmodel = "demo/hybrid"\nargs = { data_parallel_size = 2 }\n'
    with pytest.raises(ConfigError, match=r"engines\.demo\.args\.data_parallel_size: not with several"):
        parse_config(f'[server]\nprocesses = 2\n{engine}[routes.demo]\nengine = "demo"\n', ROOT)
