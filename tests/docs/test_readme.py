"""The README's commands do what it says, against a server with the routes of `make serve` over a scripted engine."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest

from models.text.tokenizer import HubTokenizer
from tests.docs.files import ROOT
from tests.wire.served import Served, served

ADDRESS = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, start: str) -> list[str]:
    return [code for kind, code in FENCED.findall(README) if kind == language and code.startswith(start)]


CURLS = blocks("bash", "curl ")
SCRIPTS = blocks("python", "from openai")


@pytest.fixture
def demo(tokenizer: HubTokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    settings = (ROOT / "configs/english.toml").read_text(encoding="utf-8").replace("port = 8000", "port = 0")
    with served(tokenizer, ["<think>(36-5)*12</think>372</no_think>"], settings) as server:
        yield server


def test_a_first_request_is_shown_with_curl() -> None:
    assert ("## First request" in README) <= bool(CURLS)
    assert all(ADDRESS in command for command in [*CURLS, *SCRIPTS])


@pytest.mark.parametrize("command", CURLS, ids=range(len(CURLS)))
def test_a_curl_command_of_the_readme_is_answered(demo: Served, command: str) -> None:
    here = command.replace(ADDRESS, demo.url).replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", here], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if re.search(r'"stream": *true', command):
        assert ran.stdout.endswith("data: [DONE]\n\n")
    else:
        assert "error" not in orjson.loads(ran.stdout)


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_a_script_of_the_readme_runs(demo: Served, script: str) -> None:
    command = [sys.executable, "-c", script.replace(ADDRESS, demo.url)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_PROXY": "*"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_answer_shown_has_the_keys_of_a_real_one(demo: Served) -> None:
    shown = [orjson.loads(code) for kind, code in FENCED.findall(README) if kind == "json"]
    assert ("## First request" in README) <= bool(shown)
    for reply in shown:
        here = CURLS[0].replace(ADDRESS, demo.url).replace("curl ", "curl --silent ", 1)
        real = orjson.loads(subprocess.run(["bash", "-c", here], capture_output=True, timeout=60, check=True).stdout)
        assert not missing(reply, real)


def missing(shown: object, real: object, at: str = "") -> list[str]:
    """Keys of what is shown that the real answer does not have."""
    if isinstance(shown, dict) and isinstance(real, dict):
        inside = [
            key for name in shown.keys() & real.keys() for key in missing(shown[name], real[name], f"{at}.{name}")
        ]
        return [f"{at}.{name}" for name in shown.keys() - real.keys()] + inside
    if isinstance(shown, list) and isinstance(real, list):
        return [key for one, other in zip(shown, real, strict=True) for key in missing(one, other, at)]
    return []
