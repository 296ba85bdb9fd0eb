"""`make serve`: the plain-English model is made once, and where it cannot be made the tiny one is served."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT

ADAPTER = "demo/english/adapter/adapter_model.safetensors"
TRAIN = """#!/bin/sh
case $1 in *english_base*) folder=build/english-base ;; *) folder=build/english ;; esac
[ -z "$NO_PACKAGE" ] || { echo "the package cannot be downloaded" >&2; exit 2; }
echo "made $folder"; mkdir -p $folder; touch $folder/config.json
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, an environment that is installed, and programs that only say what they were told."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (ADAPTER, "pyproject.toml", "constraints.txt", "deploy/install.sh", "env/.installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, text in {"reasond-train": TRAIN, "reasond": '#!/bin/sh\necho "reasond $*"\n'}.items():
        program = tmp_path / "env/bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    return tmp_path


def serve(folder: Path, *settings: str, **environment: str) -> tuple[list[str], str]:
    command = ["make", "--silent", "serve", "VENV=env", "PORT=7", *settings]
    ran = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.splitlines(), ran.stderr


def test_the_plain_english_model_is_made_once(clone: Path) -> None:
    served = "reasond serve configs/english.toml --host 127.0.0.1 --port 7"
    assert serve(clone)[0] == ["made build/english-base", "made build/english", served]
    assert serve(clone, NO_PACKAGE="1")[0] == [served]
    os.utime(clone / ADAPTER, (2**32, 2**32))
    assert serve(clone)[0] == ["made build/english", served]


def test_without_its_base_the_tiny_model_is_served_and_what_is_said_tells_why(clone: Path) -> None:
    said, told = serve(clone, NO_PACKAGE="1")
    assert said == ["reasond serve configs/demo.toml --host 127.0.0.1 --port 7"]
    assert "the package cannot be downloaded" in told
    assert "serving the tiny one" in told


def test_a_configuration_of_ones_own_needs_no_model(clone: Path) -> None:
    said, _ = serve(clone, "CONFIG=mine.toml", NO_PACKAGE="1")
    assert said == ["reasond serve mine.toml --host 127.0.0.1 --port 7"]
