"""Real clients, each in an environment of its own, on three kinds of route. `docs/clients.md` has the table."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.accept.clients.agents import TAGS, Agent, claude_code, codex, picture
from tests.accept.clients.model import FAMILIES, Reader, clients_server
from tests.e2e.environments import environment
from tests.wire.served import ROOT, Served

pytestmark = pytest.mark.accept
HERE = Path(__file__).parent
SDKS = {
    "openai_sdk": ("openai==3.57.0",),
    "anthropic_sdk": ("anthropic==2.14.0",),
    "litellm_sdk": ("litellm==1.110.2", "mcp>=1.20"),
    "pydantic_ai_sdk": ("pydantic-ai-slim[openai,anthropic]==2.68.0",),
}
AGENTS = ("@anthropic-ai/claude-code@2.1.332", "@openai/codex@0.171.0")


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
    ran = subprocess.run(
        [python, HERE / f"{name}.py", server[0].url],
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("ok")


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the agents' programs, as npm installs them."""
    folder = ROOT / ".npm-agents"
    built = folder / ".built"
    if not (built.exists() and built.read_text() == repr(AGENTS)):
        folder.mkdir(exist_ok=True)
        options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--foreground-scripts"]
        subprocess.run(["npm", "install", *options, *AGENTS], check=True, timeout=600)
        subprocess.run(["node", "install.cjs"], cwd=folder / "node_modules/@anthropic-ai/claude-code", check=True)
        built.write_text(repr(AGENTS))
    return folder / "node_modules" / ".bin"


@pytest.mark.parametrize(
    ("made", "writes", "looks"),
    [
        (claude_code, lambda path: ("Write", {"file_path": path, "content": TAGS}), ("Read", "file_path")),
        (codex, lambda path: ("exec_command", {"cmd": f"cat > {path} <<'END'\n{TAGS}END"}), ("view_image", "path")),
    ],
    ids=["claude-code", "codex"],
)
def test_an_agent_works_and_goes_on_in_a_second_session(
    server: tuple[Served, Reader],
    programs: Path,
    tmp_path: Path,
    made: Callable[..., Agent],
    writes: Callable[[str], tuple[str, dict[str, str]]],
    looks: tuple[str, str],
) -> None:
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    (folder / "red.png").write_bytes(picture())
    agent = made(programs, server[0].url, home, folder)
    assert agent.run("SAY hello from here") == "hello from here"
    written = folder / "tags.md"
    name, arguments = writes(str(written))
    look, argument = looks
    task = [
        f"CALL {name} {json.dumps(arguments)}",
        f"CALL {look} {json.dumps({argument: str(folder / 'red.png')})}",
        "SAY both are done",
    ]
    assert agent.run("\n".join(task)) == "both are done"
    assert written.read_text() == TAGS
    assert agent.run("SAY a second session", resumed=True) == "a second session"
    assert "[image: this model reads text only]" in server[1].prompts[-1]
