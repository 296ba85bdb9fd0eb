"""What the server says of itself."""

import tomllib
from pathlib import Path

import pytest

from server import __version__

THREE = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
replies = ["5"]

[routes."demo/auto:1"]
engine = "demo"
family = "lhrm"
think_threshold = 0.25
description = "Chooses."

[routes.fast]
engine = "demo"
family = "qwen3"
mode = "no_think"

[routes.plain]
engine = "demo"
family = "plain"
"""


@pytest.mark.anyio
async def test_the_model_list_tells_what_each_route_can_do(make_client):
    async with make_client(routes=THREE) as client:
        listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    cards = {card["id"]: card for card in listed["data"]}
    assert cards["demo/auto:1"]["object"] == "model"
    assert cards["demo/auto:1"]["max_model_len"] == 512
    assert cards["demo/auto:1"]["reasond"] == {
        "description": "Chooses.",
        "family": "lhrm",
        "family_found_by": "named by the configuration",
        "tools": {"arguments": "json", "constrained": True},
        "template_efforts": [],
        "modes": ["think", "no_think", "auto"],
        "default_mode": "auto",
        "auto": True,
        "decider": "model",
        "think_threshold": 0.25,
        "budgets": {
            "scope": "thinking",
            "declares": False,
            "default": None,
            "cap": None,
            "efforts": {"minimal": 128, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384},
            "answer_reserve": 64,
            "cut": "graceful",
        },
        "exit": None,
        "speculative": None,
        "best_of": None,
        "judge": None,
    }
    assert cards["fast"]["reasond"]["modes"] == ["think", "no_think"]
    assert cards["fast"]["reasond"]["default_mode"] == "no_think"
    assert cards["plain"]["reasond"]["modes"] == ["no_think"]
    assert not cards["plain"]["reasond"]["auto"]
    assert cards["plain"]["reasond"]["budgets"] is None


@pytest.mark.anyio
async def test_a_model_is_found_by_its_name_even_with_a_slash_in_it(make_client):
    async with make_client(routes=THREE) as client:
        assert (await client.get("/v1/models/demo/auto:1")).json()["id"] == "demo/auto:1"
        assert (await client.get("/v1/models/demo")).status_code == 404


@pytest.mark.anyio
async def test_the_server_is_ready_until_it_drains(make_app, make_client):
    app = make_app()
    async with make_client(app) as client:
        assert (await client.get("/ready")).status_code == 200
        app.state.runtime.draining.set()
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
        assert (await client.get("/health")).status_code == 200


@pytest.mark.anyio
async def test_a_dead_engine_makes_the_server_unready_but_not_unhealthy(make_client, engine):
    async with make_client() as client:
        await engine.close()
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "engine down"})
        assert (await client.get("/health")).status_code == 200


@pytest.mark.anyio
async def test_the_version_is_the_packages(make_client):
    async with make_client() as client:
        assert (await client.get("/version")).json() == {"version": __version__}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__


@pytest.mark.anyio
async def test_metrics_hold_the_servers_own_and_those_of_the_process(make_client):
    async with make_client() as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'reasond:num_requests_running{route="demo"} 0.0' in answer.text
    assert "python_info" in answer.text


@pytest.mark.anyio
async def test_the_api_describes_itself(make_client):
    async with make_client() as client:
        assert "/v1/models" in (await client.get("/openapi.json")).json()["paths"]
