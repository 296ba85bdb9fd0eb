"""Environments for other people's clients, virtual or of Node: each has its own, is built once and kept."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.wire.served import ROOT


def environment(name: str, *installs: Sequence[str]) -> Path:
    """The folder of `.venv-NAME`'s programs. Each of `installs` is one call of `pip install` with these arguments."""
    folder = ROOT / f".venv-{name}"
    programs, built, wanted = folder / "bin", folder / ".built", repr(installs)
    if not (built.exists() and built.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for arguments in installs:
            subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *arguments], check=True)
        built.write_text(wanted)
    return programs


def node_environment(name: str, *packages: str) -> Path:
    """The folder of `.npm-NAME`, with `packages` and what they install themselves."""
    folder = ROOT / f".npm-{name}"
    built, wanted = folder / ".built", repr(packages)
    if not (built.exists() and built.read_text() == wanted):
        folder.mkdir(exist_ok=True)
        options = ["--prefix", folder, "--no-audit", "--no-fund", "--foreground-scripts"]
        subprocess.run(["npm", "install", *options, *packages], check=True, timeout=600)
        for script in folder.glob("node_modules/@anthropic-ai/*/install.cjs"):  # npm may have been told to run none
            subprocess.run(["node", script], cwd=script.parent, check=True)
        built.write_text(wanted)
    return folder
