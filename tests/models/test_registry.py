import os

import pytest

from models.engines.base import Prompt, Sampling
from models.engines.registry import EngineSpec, _environment, load
from tests.conftest import ROOT, Run

TOKENIZER = str(ROOT / "demo" / "tokenizer")


def test_a_script_from_config_says_its_replies(run: Run) -> None:
    engine = run(load(EngineSpec("demo", "scripted", TOKENIZER, {"replies": ["hello"], "context_length": 100})))

    async def text() -> str:
        return "".join([delta.text async for delta in engine.generate(Prompt([1]), Sampling())])

    assert run(text()) == "hello"
    assert (engine.name, engine.context_length) == ("demo", 100)


def test_a_script_without_replies_says_random_tokens(run: Run) -> None:
    engine = run(load(EngineSpec("demo", "scripted", TOKENIZER, {"length": 12})))

    async def count() -> int:
        return sum([len(delta.token_ids) async for delta in engine.generate(Prompt([1]), Sampling())])

    assert run(count()) == 13  # and the end of sequence


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("scripted", {"speed": 3}, "scripted engines have no speed"),
        ("remote", {"url": "http://127.0.0.1:1", "key": "x"}, "remote engines have no key"),
        ("remote", {}, "url is missing"),
    ],
)
def test_a_wrong_argument_is_named(run: Run, kind: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(load(EngineSpec("demo", kind, TOKENIZER, args)))  # type: ignore[arg-type]


def test_the_environment_of_an_engine_is_gone_after_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASOND_TEST", "before")
    with _environment({"REASOND_TEST": "during", "REASOND_TEST_NEW": "during"}):
        assert os.environ["REASOND_TEST"] == "during"
    assert os.environ["REASOND_TEST"] == "before"
    assert "REASOND_TEST_NEW" not in os.environ
