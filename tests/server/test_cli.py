"""The command line."""

import os
import subprocess
import sys
import time
import tomllib

import pytest

from server import __version__
from server.cli import main
from server.edges.auth import digest, parse_keys
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

HEAVY = ("torch", "transformers", "vllm", "fastapi", "uvicorn", "starlette")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ}
    )


def test_help_answers_in_under_a_second():
    started = time.perf_counter()
    assert "serve" in run("-m", "server.cli", "--help").stdout
    assert time.perf_counter() - started < 1.0


def test_the_command_line_and_the_settings_load_no_framework():
    loaded = run("-c", "import sys, server.cli, server.config.load; print(*sys.modules)").stdout.split()
    assert "server.config.load" in loaded
    assert not set(HEAVY) & set(loaded)


def test_a_wrong_configuration_is_told_without_a_traceback(tmp_path, capsys):
    file = tmp_path / "wrong.toml"
    file.write_text(ENGINE_AND_ROUTE.replace("lhrm", "sphinx"))
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err.startswith("routes.demo.family: unknown family 'sphinx'")


def test_check_prints_the_modes_that_follow_and_no_value_of_an_engines_environment(tmp_path, capsys):
    file = tmp_path / "settings.toml"
    file.write_text(
        '[engines.e]\nkind = "vllm"\nmodel = "a/b"\nenv = { HF_TOKEN = "secret-1" }\n'
        '[routes.r]\nengine = "e"\nfamily = "qwen3"\n'
    )
    assert main(["check", str(file)]) == 0
    printed = capsys.readouterr().out
    assert '"mode": "think"' in printed
    assert "HF_TOKEN" in printed
    assert "secret-1" not in printed
    assert printed.splitlines()[-1] == ("engines.e: a/b is not on this machine yet; its routes are proved at start")


def test_a_new_key_is_printed_with_the_line_that_lets_it_in(capsys):
    assert main(["key", "new", "alice"]) == 0
    key, line = (line.partition(":")[2].strip() for line in capsys.readouterr().out.splitlines())
    assert parse_keys(line) == {digest(key): "alice"}


def test_the_address_on_the_command_line_wins(tmp_path, capsys):
    file = tmp_path / "settings.toml"
    file.write_text('[server]\nport = 1234\nhost = "0.0.0.0"\n' + ENGINE_AND_ROUTE)
    assert main(["serve", str(file), "--host", "::1", "--print-config"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["server"] == {"port": 1234, "host": "::1"}


@pytest.mark.parametrize("arguments", [[], ["serve"], ["serve", "x", "--port", "99999"], ["key"], ["dance"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert "usage: reasond" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"reasond {__version__}\n"
