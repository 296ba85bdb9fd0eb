"""Coding agents, driven as their users drive them: hello, tools, a file with thinking tags in it, an image, a second
session. Each has a home folder of its own and dummy keys, and sends nothing but to the loopback."""

import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAGS = "Models write <think>draft</think> before they answer.\nEnd: </think>\n"
SECONDS = 600  # for one task, on a machine that does other things as well
Call = tuple[str, dict[str, Any]]
QUIET = {"DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_ERROR_REPORTING": "1", "IS_SANDBOX": "1"}


@dataclass(frozen=True)
class Agent:
    """A command that takes a task, and a command that goes on in the last session with a further one. `writes` is the
    call that writes `TAGS` to a path, `looks` the one that reads an image. Some take the task on standard input only as
    it stands (`piped`)."""

    begin: Sequence[str]
    resume: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    writes: Callable[[str], Call]
    looks: Callable[[str], Call]
    piped: bool = False

    def run(self, task: str, *, resumed: bool = False) -> str:
        """What it says at the end of the task."""
        command = self.resume if resumed else self.begin
        ran = subprocess.run(
            command if self.piped else [*command, task],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **self.environment},
            input=task if self.piped else "",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout.strip().splitlines()[-1]


def claude_code(programs: Path, url: str, home: Path, folder: Path) -> Agent:
    names = ("ANTHROPIC_MODEL", *(f"ANTHROPIC_DEFAULT_{kind}_MODEL" for kind in ("HAIKU", "SONNET", "OPUS")))
    environment = {
        **QUIET,
        **dict.fromkeys(names, "q"),
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    begin = [str(programs / "claude"), "--permission-mode", "bypassPermissions"]
    return Agent(
        [*begin, "-p"],
        [*begin, "--continue", "-p"],
        environment,
        folder,
        lambda path: ("Write", {"file_path": path, "content": TAGS}),
        lambda path: ("Read", {"file_path": path}),
    )


CODEX = """model = "q"
model_provider = "here"
[analytics]
enabled = false
[model_providers.here]
name = "here"
base_url = "URL/v1"
env_key = "KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def codex(programs: Path, url: str, home: Path, folder: Path) -> Agent:
    settings = home / "codex"
    settings.mkdir(parents=True)
    (settings / "config.toml").write_text(CODEX.replace("URL", url))
    environment = {"HOME": str(home), "CODEX_HOME": str(settings), "KEY": "dummy"}
    flags = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    begin = [str(programs / "codex"), "exec", *flags]
    return Agent(
        begin,
        [*begin, "resume", "--last"],
        environment,
        folder,
        lambda path: ("exec_command", {"cmd": f"cat > {path} <<'END'\n{TAGS}END"}),
        lambda path: ("view_image", {"path": path}),
    )


def opencode(programs: Path, url: str, home: Path, folder: Path) -> Agent:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "here",
        "options": {"baseURL": f"{url}/v1", "apiKey": "any"},
        "models": {"q": {"name": "q", "modalities": {"input": ["text", "image"], "output": ["text"]}}},
    }
    names = {"model": "here/q", "small_model": "here/q"}
    quiet = {"autoupdate": False, "share": "disabled", "permission": "allow"}
    (folder / "opencode.json").write_text(json.dumps({**names, **quiet, "provider": {"here": provider}}))
    begin = [str(programs / "opencode"), "run"]
    return Agent(
        begin,
        [*begin, "--continue"],
        {"HOME": str(home)},
        folder,
        lambda path: ("write", {"filePath": path, "content": TAGS}),
        lambda path: ("read", {"filePath": path}),
        piped=True,
    )


def aider(programs: Path, url: str) -> Sequence[str]:
    """The command that takes a task as its last argument. It edits files itself, without tools."""
    quiet = ["--no-git", "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-pretty"]
    server = ["--openai-api-base", f"{url}/v1", "--openai-api-key", "any", "--model", "openai/q"]
    flags = ["--yes-always", "--no-detect-urls", "--edit-format", "whole", "--restore-chat-history"]
    return [str(programs / "aider"), *quiet, *server, *flags, "--message"]


def picture() -> bytes:
    """A small red image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8)))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
