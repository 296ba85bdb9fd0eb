"""Settings to engines: what the registry is asked for, and that what was started is closed."""

from contextlib import AsyncExitStack

import pytest

from models.engines.base import EngineDead
from server.config.load import Config, ConfigError, parse_config
from server.engines import engine_spec, start_engines
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

VLLM = """
[engines.e]
kind = "vllm"
model = "demo/tokenizer"
chat_template = "demo/tokenizer/chat_template.jinja"
args = { max_model_len = 64 }
env = { VLLM_CPU_KVCACHE_SPACE = "1" }
adapters = { maths = "demo/tokenizer" }
"""
REMOTE = """
[engines.e]
kind = "remote"
model = "demo/tokenizer"
url = "http://127.0.0.1:1"
key_env = "THEIR_KEY"
adapters = { maths = "maths-v2" }
"""
ROUTES = '[routes.a]\nengine = "e"\nfamily = "{}"\n[routes.b]\nengine = "e"\nfamily = "{}"\n'
FOLDER = str(ROOT / "demo/tokenizer")


def parse(engine: str, *families: str) -> Config:
    return parse_config(engine + ROUTES.format(*(families or ("lhrm", "plain"))), ROOT)


def test_an_engine_in_this_process_gets_its_arguments_its_template_and_its_tags():
    spec = engine_spec(parse(VLLM), "e", {})
    assert (spec.name, spec.kind, spec.model) == ("e", "vllm", FOLDER)
    assert spec.args == {"max_model_len": 64}
    assert spec.env == {"VLLM_CPU_KVCACHE_SPACE": "1"}
    assert spec.adapters == {"maths": FOLDER}
    assert spec.thinking == ("<think>", "</think>")
    assert spec.chat_template is not None
    assert "<|im_start|>" in spec.chat_template


def test_an_engine_whose_routes_do_not_think_watches_no_tags():
    assert engine_spec(parse(VLLM, "plain", "plain"), "e", {}).thinking is None


def test_a_remote_engine_gets_the_key_that_the_environment_holds():
    spec = engine_spec(parse(REMOTE), "e", {"THEIR_KEY": "k"})
    assert spec.args == {"url": "http://127.0.0.1:1", "api_key": "k"}
    assert spec.adapters == {"maths": "maths-v2"}
    with pytest.raises(ConfigError, match=r"engines\.e\.key_env: .*THEIR_KEY"):
        engine_spec(parse(REMOTE), "e", {})


@pytest.mark.anyio
async def test_engines_are_closed_when_a_later_one_does_not_start():
    text = ENGINE_AND_ROUTE + REMOTE.replace('key_env = "THEIR_KEY"\n', "")
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
    remote = parse(REMOTE.replace('key_env = "THEIR_KEY"\n', ""))
    nowhere = parse_config(ENGINE_AND_ROUTE.replace("demo/tokenizer", "demo"), ROOT)
    for config, name in ((remote, "e"), (nowhere, "demo")):
        with pytest.raises(ConfigError, match=rf"^engines\.{name}: ") as refusal:
            async with AsyncExitStack() as stack:
                await start_engines(config, stack)
        assert "\n" not in str(refusal.value)
