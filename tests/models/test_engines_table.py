"""The table of engines: a kind is its settings and its loader, and nothing else knows it by name."""

import os
from contextlib import AsyncExitStack
from typing import Literal

import pytest
from pydantic import Field

from models.engines import ENGINES, EngineConfig, EngineKind, ScriptedEngineConfig, load
from models.engines.base import Prompt, Sampling
from models.engines.processes import environment
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.config.load import ConfigError, parse_config
from server.engines import start_engines
from tests.conftest import ROOT, Run

TOKENIZER = str(ROOT / "demo" / "tokenizer")
ROUTE = '[routes.demo]\nengine = "demo"\nfamily = "lhrm"\n'


class ParrotConfig(EngineConfig):
    kind: Literal["parrot"]
    word: str
    times: int = Field(default=1, ge=1)


async def load_parrot(name: str, config: ParrotConfig, thinking: tuple[str, str] | None) -> ScriptedEngine:
    script = [config.word * config.times]
    return ScriptedEngine(HubTokenizer(config.model), script, name=name, thinking=thinking)


def test_a_kind_is_added_at_run_time_by_its_line_in_the_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[engines.demo]\nkind = "parrot"\nmodel = "demo/tokenizer"\nword = "ha"\ntimes = {}\n' + ROUTE
    with pytest.raises(ConfigError, match=r"engines\.demo: unknown kind 'parrot'; known: vllm, remote, scripted"):
        parse_config(text.format(2), ROOT)
    monkeypatch.setitem(ENGINES, "parrot", EngineKind(ParrotConfig, load_parrot))
    with pytest.raises(ConfigError, match=r"engines\.demo\.times: "):
        parse_config(text.format(0), ROOT)
    config = parse_config(text.format(2), ROOT)
    assert config.model_dump()["engines"]["demo"] | {"model": ""} == {
        "kind": "parrot",
        "model": "",
        "chat_template": "",
        "adapters": {},
        "word": "ha",
        "times": 2,
    }

    async def reply() -> tuple[str, tuple[str, str] | None]:
        async with AsyncExitStack() as stack:
            engine = (await start_engines(config, stack))["demo"]
            deltas = [delta async for delta in engine.generate(Prompt([1]), Sampling())]
            return "".join(delta.text for delta in deltas), engine.native_budget

    assert run(reply()) == ("haha", ("<think>", "</think>"))


def test_a_script_from_config_says_its_replies(run: Run) -> None:
    config = ScriptedEngineConfig(model=TOKENIZER, replies=("hello",), context_length=100)
    engine = run(load("demo", config))

    async def text() -> str:
        return "".join([delta.text async for delta in engine.generate(Prompt([1]), Sampling())])

    assert run(text()) == "hello"
    assert (engine.name, engine.context_length) == ("demo", 100)


def test_a_script_without_replies_says_random_tokens(run: Run) -> None:
    engine = run(load("demo", ScriptedEngineConfig(model=TOKENIZER, length=12)))

    async def count() -> int:
        return sum([len(delta.token_ids) async for delta in engine.generate(Prompt([1]), Sampling())])

    assert run(count()) == 13  # and the end of sequence


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ('kind = "scripted"\nspeed = 3', r"engines\.demo\.speed: unknown key"),
        ('kind = "remote"\nurl = "http://x"\nkey = "x"', r"engines\.demo\.key: unknown key"),
        ('kind = "remote"', r"engines\.demo: needs one of url"),
        ("", r"engines\.demo: unknown kind None"),
    ],
)
def test_a_wrong_setting_is_named_by_its_key(settings: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_config(f'[engines.demo]\nmodel = "demo/tokenizer"\n{settings}\n{ROUTE}', ROOT)


def test_the_environment_of_an_engine_is_gone_after_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASOND_TEST", "before")
    with environment({"REASOND_TEST": "during", "REASOND_TEST_NEW": "during"}):
        assert os.environ["REASOND_TEST"] == "during"
    assert os.environ["REASOND_TEST"] == "before"
    assert "REASOND_TEST_NEW" not in os.environ
