"""Settings to engines: what keeps one from starting is said in one line, and what was started is closed."""

import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from models.engines.base import EngineDead
from server.config.load import Config, ConfigError, parse_config
from server.engines import start_engines
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

REMOTE = """
[engines.e]
kind = "remote"
model = "demo/tokenizer"
url = "http://127.0.0.1:1"
"""
ROUTES = '[routes.a]\nengine = "e"\nfamily = "{}"\n[routes.b]\nengine = "e"\nfamily = "{}"\n'
SCRIPT = '[engines.e]\nkind = "scripted"\nmodel = "demo/tokenizer"\n'


def parse(engine: str, *families: str) -> Config:
    return parse_config(engine + ROUTES.format(*(families or ("lhrm", "plain"))), ROOT)


@pytest.mark.parametrize(
    ("families", "tags"),
    [
        (("lhrm", "plain"), ("<think>", "</think>")),
        (("plain", "plain"), None),
        (("lhrm", "qwen3"), ("<think>", "</think>")),
    ],
)
@pytest.mark.anyio
async def test_an_engine_watches_the_tags_that_its_routes_think_between(families, tags):
    async with AsyncExitStack() as stack:
        engines = await start_engines(parse_config(SCRIPT + ROUTES.format(*families), ROOT), stack)
        assert engines["e"].native_budget == tags


@pytest.mark.parametrize("vllm", ["raise ImportError('no libcudart')", "import nothing_of_this_name"])
def test_a_vllm_that_is_missing_or_broken_is_one_line_with_the_key_and_status_2(tmp_path, vllm):
    (tmp_path / "settings.toml").write_text(
        '[engines.e]\nkind = "vllm"\nmodel = "demo/tokenizer"\n' + ROUTES.format("lhrm", "plain")
    )
    (tmp_path / "vllm.py").write_text(vllm)
    command = [sys.executable, "-m", "server.cli", "serve", str(tmp_path / "settings.toml"), "--port", "0"]
    paths = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | paths)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert re.match(r"engines\.e: kind 'vllm' needs vLLM .*", ended.stderr.splitlines()[-1]), ended.stderr


@pytest.mark.anyio
async def test_engines_are_closed_when_a_later_one_does_not_start():
    text = ENGINE_AND_ROUTE + REMOTE
    async with AsyncExitStack() as stack:
        engines = await start_engines(parse_config(ENGINE_AND_ROUTE, ROOT), stack)
        await engines["demo"].check()
    with pytest.raises(EngineDead):
        await engines["demo"].check()
    with pytest.raises(ConfigError, match=r"engines\.e: "):
        async with AsyncExitStack() as stack:
            await start_engines(parse_config(text, ROOT), stack)


@pytest.mark.anyio
async def test_what_keeps_an_engine_from_starting_is_one_line_with_its_name():
    remote = parse(REMOTE)
    nowhere = parse_config(ENGINE_AND_ROUTE.replace("demo/tokenizer", "demo"), ROOT)
    for config, name in ((remote, "e"), (nowhere, "demo")):
        with pytest.raises(ConfigError, match=rf"^engines\.{name}: ") as refusal:
            async with AsyncExitStack() as stack:
                await start_engines(config, stack)
        assert "\n" not in str(refusal.value)
