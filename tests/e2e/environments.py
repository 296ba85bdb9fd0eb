"""Virtual environments for other people's clients: each has its own, is built once and kept."""

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
