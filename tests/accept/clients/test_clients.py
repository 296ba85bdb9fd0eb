"""Real clients, each in an environment of its own, on three kinds of route. `docs/clients.md` has the table."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.accept.clients.coding_agents import TAGS, aider, claude_code, codex, opencode, picture
from tests.accept.clients.model import FAMILIES, Reader, clients_server
from tests.e2e.environments import environment, node_environment
from tests.processes import free_port, running
from tests.wire.served import Served

pytestmark = pytest.mark.accept
HERE = Path(__file__).parent
SDKS = {
    "openai_sdk": ("openai==3.57.0",),
    "anthropic_sdk": ("anthropic==2.14.0",),
    "agents_sdk": ("openai-agents==0.24.0",),
    "langchain_sdk": ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10", "langgraph==1.2.24"),
    "litellm_sdk": ("litellm==1.110.2", "mcp>=1.20"),
    "llama_index_sdk": ("llama-index-llms-openai-like==0.8.1",),
    "pydantic_ai_sdk": ("pydantic-ai-slim[openai,anthropic]==2.68.0",),
}
VERCEL = (
    "ai@7.0.173",
    "@ai-sdk/openai@4.0.118",
    "@ai-sdk/anthropic@4.0.105",
    "@ai-sdk/openai-compatible@3.0.92",
    "zod",
)
CODING_AGENTS = {
    "@anthropic-ai/claude-code@2.1.332": claude_code,
    "@anthropic-ai/claude-code@2.1.197": claude_code,
    "@openai/codex@0.171.0": codex,
    "opencode-ai@1.18.33": opencode,
}
AIDER = ("aider-chat==0.86.2",)
SECONDS = 600  # for one client, on a machine that does other things as well


@pytest.fixture(params=FAMILIES)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Reader]]:
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    with clients_server(request.param) as both:
        yield both


@pytest.mark.parametrize("name", SDKS)
def test_an_sdk_goes_on_from_the_objects_that_it_was_given(
    server: tuple[Served, Reader], name: str, tmp_path: Path
) -> None:
    python = environment(name.replace("_", "-"), SDKS[name]) / "python"
    quiet = {"HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    _says_ok([python, HERE / f"{name}.py", server[0].url], quiet)


PROXY = ("litellm[proxy]==1.108.7",)
BEHIND_PROXY = {"openai_sdk": "openai/q", "anthropic_sdk": "anthropic/q"}
"""Each SDK, and what LiteLLM speaks for it."""


@pytest.mark.parametrize("name", BEHIND_PROXY)
def test_an_sdk_goes_on_behind_litellms_proxy(server: tuple[Served, Reader], name: str, tmp_path: Path) -> None:
    kind, port = BEHIND_PROXY[name], free_port()
    base = server[0].url + ("/v1" if kind.startswith("openai") else "")
    model = {"model_name": "q", "litellm_params": {"model": kind, "api_base": base, "api_key": "any"}}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model_list": [model], "litellm_settings": {"telemetry": False}}))
    command = [str(environment("litellm-proxy", PROXY) / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    here = f"http://127.0.0.1:{port}"
    quiet = {"HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    python = environment(name.replace("_", "-"), SDKS[name]) / "python"
    keyless = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # it is on the loopback
    ready = f"{here}/health/liveliness"
    with running([*command, "--port", str(port)], ready, {**quiet, **keyless}, SECONDS, tmp_path / "log"):
        _says_ok([python, HERE / f"{name}.py", here, "litellm"], quiet)


def test_the_vercel_sdk_goes_on_from_the_messages_that_it_was_given(server: tuple[Served, Reader]) -> None:
    script = node_environment("vercel", *VERCEL) / "vercel_sdk.mjs"
    shutil.copyfile(HERE / script.name, script)  # Node looks for packages beside the script
    _says_ok(["node", script, server[0].url], {})


def _says_ok(command: Sequence[str | Path], settings: Mapping[str, str]) -> None:
    environ = os.environ | settings
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("ok")


@pytest.mark.parametrize("package", CODING_AGENTS)
def test_an_agent_works_and_goes_on_in_a_second_session(
    server: tuple[Served, Reader], package: str, tmp_path: Path
) -> None:
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    (folder / "red.png").write_bytes(picture())
    programs = node_environment(package.rpartition("/")[2].replace("@", "-"), package) / "node_modules" / ".bin"
    agent = CODING_AGENTS[package](programs, server[0].url, home, folder)
    assert agent.run("SAY hello from here") == "hello from here"
    written = folder / "tags.md"
    task = [
        f"CALL {name} {json.dumps(arguments)}"
        for name, arguments in (agent.writes(str(written)), agent.looks(str(folder / "red.png")))
    ]
    assert agent.run("\n".join([*task, "SAY both are done"])) == "both are done"
    assert written.read_text() == TAGS
    assert agent.run("SAY a second session", resumed=True) == "a second session"
    assert "[image: this model reads text only]" in server[1].prompts[-1]


def test_aider_writes_a_file_and_knows_its_last_session(server: tuple[Served, Reader], tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    command = aider(environment("aider", AIDER), server[0].url)

    def run(task: str) -> str:
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        options = {"cwd": folder, "env": environ, "input": "", "text": True, "timeout": SECONDS}
        ran = subprocess.run([*command, task], **options, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "hello from here" in run("SAY hello from here")
    run("WRITE " + json.dumps(f"tags.md\n```\n{TAGS}```\n"))
    assert (folder / "tags.md").read_text() == TAGS
    assert "a second session" in run("SAY a second session")
    assert "SAY hello from here" in server[1].prompts[-1]
