"""What `reasond serve` tells its terminal: that it is ready, and nothing of what libraries say."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from server.app import create_app
from server.config.load import parse_config
from server.observability.foreign import diverted
from server.ready import ready_lines
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.running import START_SECONDS, wait_until_ready

KEY = "sk-of-the-test"


@contextmanager
def served(folder, *flags: str, environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server over the scripted engine, until the block ends."""
    (folder / "settings.toml").write_text("[logging]\nrequests = true\n" + ENGINE_AND_ROUTE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "server.cli", "serve", str(folder / "settings.toml"), "--port", str(port), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, **pipes)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/ready", process)
        yield process, port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("environment", [{}, {"REASOND_API_KEYS": KEY, "REASOND_API_KEY": KEY}], ids=["open", "keys"])
def test_a_server_says_when_it_is_ready_and_its_curl_line_works(tmp_path, environment):
    with served(tmp_path, environment=environment) as (process, port):
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        base = f"http://127.0.0.1:{port}"
        assert re.fullmatch(rf"reasond \S+ serves {base}/v1 \(OpenAI\) and {base} \(Anthropic, a browser\)", lines[0])
        assert lines[1] == "demo: family lhrm; modes think, no_think, auto (default auto)"
        asked = subprocess.run(
            ["bash", "-c", lines[2]], capture_output=True, check=True, env={**os.environ, **environment}
        )
        assert json.loads(asked.stdout)["choices"][0]["message"]["content"] == "5"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=START_SECONDS)
    assert (process.returncode, out) == (0, "")
    assert all(
        re.match(r"[-\d]+ [:,\d]+ (INFO|WARNING) (server|controllers|models)", line) for line in err.splitlines()
    )


def test_with_v_the_terminal_shows_what_libraries_say(tmp_path):
    with served(tmp_path, "-v", environment={}) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=START_SECONDS)
    assert "DEBUG" in err
    assert "uvicorn.error" in err


@pytest.mark.parametrize(("host", "base"), [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80")])
def test_the_address_is_one_that_can_be_asked(engine, host, base):
    config = parse_config("[server]\npage = false\n" + ENGINE_AND_ROUTE + 'names = ["other"]\n', ROOT)
    first, route, curl = ready_lines(create_app(config, {"demo": engine}).state.runtime, host, 80)
    assert first.endswith(f"serves {base}/v1 (OpenAI) and {base} (Anthropic)")
    assert route.startswith("  demo, other: ")
    assert curl.startswith(f"curl {base}/v1/chat/completions ")


def test_what_others_write_is_a_line_of_the_log_below_warning(caplog):
    caplog.set_level(logging.DEBUG, logger="server.observability.foreign")
    with diverted() as foreign:
        subprocess.run(["bash", "-c", "echo of a process; echo 'WARNING 12-01 of it' >&2"], check=True)
        assert foreign.cause() == ""
        told = [(record.getMessage(), record.levelname) for record in caplog.records]
    assert set(told) == {("of a process", "DEBUG"), ("WARNING 12-01 of it", "DEBUG")}


def test_failures_are_told_once_engines_run_and_their_cause_before(caplog):
    failing = "(EngineCore pid=7) ERROR 12-01 12:00:00 [core.py:1] ValueError: no room"
    caplog.set_level(logging.DEBUG, logger="server.observability.foreign")
    with diverted() as foreign:
        os.write(1, f"{failing}\nRuntimeError: died. See root cause above.\n".encode())
        assert foreign.cause() == "ValueError: no room"
        foreign.starting = False
        os.write(2, f"{failing}\nMemoryError: all gone\nquiet\n".encode())
    levels = [(record.getMessage(), record.levelname) for record in caplog.records]
    assert levels[0] == (failing, "DEBUG")
    assert levels[2:] == [(failing, "ERROR"), ("MemoryError: all gone", "ERROR"), ("quiet", "DEBUG")]
