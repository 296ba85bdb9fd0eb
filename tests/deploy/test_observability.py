"""The dashboard and the alerts speak of metrics that the server exports, and Prometheus finds data for them."""

import asyncio
import json
import math
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from server.serve import DrainingServer, build_server
from tests.controllers.stories import Model, recites
from tests.deploy.queries import ALERTS, DASHBOARD, DEPLOY, dashboard_queries, filled, metric_names
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.running import running

REPLIES = [
    "<think>3 and 2</think>5",
    "<no_think>5</no_think>",
    "<think>3 and 2",
    ScriptedReply("<no_think>5", error=RuntimeError("broken on purpose")),
]
DECIDER = """
[routes.asked]
engine = "demo"
family = "lhrm"
auto = { decider = "ask", calibration = "CALIBRATION" }
"""
CALIBRATION = {"deciders": {"ask": {"points": [[0, 0], [1, 1]], "scores": [1, 1]}}}
PAIR = """
[engines.small]
kind = "scripted"
model = "demo/tokenizer"

[engines.target]
kind = "scripted"
model = "demo/tokenizer"

[routes.pair]
controller = "speculative"
engine = "small"
family = "lhrm"
mode = "think"
speculative = { target = "target" }
"""
THOUGHT = "3 and 2.\n\nWait, 3 and 2.\n\nSo 5.</think>5"
FROM_PROMETHEUS = {"up"}

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"),
    reason="needs prometheus and promtool on PATH (Debian's package `prometheus`)",
)


@pytest.fixture
def server(tokenizer: HubTokenizer, tmp_path: Path) -> DrainingServer:
    """One of every kind of route."""
    calibration = tmp_path / "calibration.json"
    calibration.write_text(json.dumps(CALIBRATION), encoding="utf-8")
    decider = DECIDER.replace("CALIBRATION", str(calibration))
    config = parse_config(f"[server]\nport = 0\n{ENGINE_AND_ROUTE}{PAIR}{decider}", ROOT)
    scripts: dict[str, Any] = {
        "demo": REPLIES,
        **dict.fromkeys(("small", "target"), Model(tokenizer, recites(THOUGHT))),
    }
    engines = {name: ScriptedEngine(tokenizer, one, name=name, token_delay=0.002) for name, one in scripts.items()}
    return build_server(config, create_app(config, engines))


@pytest.mark.anyio
async def test_every_metric_in_a_query_or_an_alert_is_exported(server):
    text = server.runtime.metrics.text().decode()
    exported = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked = [*(query for _, query in dashboard_queries()), *(rule["expr"] for rule in ALERTS)]
    named = {name for query in asked for name in metric_names(query)}
    assert named - exported == FROM_PROMETHEUS & named
    for variable in DASHBOARD["templating"]["list"][1:]:
        assert metric_names(variable["definition"].removeprefix("label_values").strip("()").split(",")[0]) <= (
            exported | FROM_PROMETHEUS
        )
    ours = {name.removesuffix("_bucket") for name in exported if name.startswith("reasond:")}
    ours = {name for name in ours if not name.endswith(("_created", "_sum", "_count"))}
    assert ours <= {name.removesuffix("_bucket") for name in named}, "a metric that no panel and no alert shows"


@pytest.mark.anyio
async def test_the_manual_lists_every_metric_of_ours_and_no_other(make_client):
    async with make_client() as client:
        text = (await client.get("/metrics")).text
    described = {name for name in re.findall(r"^# HELP (reasond:\S+)", text, re.M) if not name.endswith("_created")}
    listed = set(re.findall(r"^\| `(reasond:\w+)` \|", (DEPLOY.parent / "docs/operations.md").read_text(), re.M))
    assert listed == described


def test_the_dashboard_is_in_order():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie upon each other"
    assert max(x for x, _ in cells) == 23
    assert all(panel.get("description") for panel in DASHBOARD["panels"] if panel["type"] != "row")


def test_every_alert_says_what_it_saw_and_has_its_lines_in_the_manual():
    manual = (DEPLOY.parent / "docs/operations.md").read_text()
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert f"`{rule['alert']}`" in manual


@needs_prometheus
def test_promtool_accepts_the_rules_and_each_fires_on_what_it_is_about():
    for arguments in (
        ["check", "config", str(DEPLOY / "prometheus/prometheus.yaml")],
        ["check", "rules", str(DEPLOY / "prometheus/alerts.yaml")],
        ["test", "rules", str(Path(__file__).parent / "alerts_test.yaml")],
    ):
        ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_prometheus
@pytest.mark.anyio
async def test_every_query_of_the_dashboard_has_data_from_a_running_server(server, tmp_path):
    async with running(server) as address, load_on(address):
        with prometheus(tmp_path, address) as url:
            async with httpx.AsyncClient(base_url=url) as client:
                silent = await still_silent(client, {filled(query, "10s"): at for at, query in dashboard_queries()})
                rules = (await client.get("/api/v1/rules")).json()["data"]["groups"][0]["rules"]
    assert silent == {}
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in ALERTS]
    assert {rule["health"] for rule in rules} == {"ok"}


async def still_silent(client: httpx.AsyncClient, queries: dict[str, str]) -> dict[str, str]:
    """The queries that have no number after a minute at most."""
    for _ in range(60):
        await asyncio.sleep(1)
        try:
            silent = {query: at for query, at in queries.items() if not await numbers(client, query)}
        except httpx.ConnectError:
            continue
        if not silent:
            break
    return silent


async def numbers(client: httpx.AsyncClient, query: str) -> list[float]:
    answer: dict[str, Any] = (await client.post("/api/v1/query", data={"query": query})).json()
    assert answer["status"] == "success", (query, answer)
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


@asynccontextmanager
async def load_on(address: str) -> AsyncGenerator[None, None]:
    """Requests of every kind, until the block ends: whole, streamed, left, refused and unknown."""
    chat = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}]}

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=address) as client:
            while True:
                for body in (
                    {},
                    {"model": "pair"},
                    {"stream": True},
                    {"reasond": {"mode": "think"}},
                    {"thinking_token_budget": 2},
                    {"temperature": 9},
                ):
                    await client.post("/v1/chat/completions", json={**chat, **body})
                async with client.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as answer:
                    await anext(answer.aiter_bytes(1))
                await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        yield
        assert not asking.done(), asking
    finally:
        asking.cancel()
        await asyncio.wait([asking])


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Prometheus with the settings in `deploy/`, but every second, of one target, in a folder of its own."""
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DEPLOY / "prometheus/alerts.yaml")]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [target.removeprefix("http://")]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
