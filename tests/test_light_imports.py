"""Config, help and the pure parts must not pay for torch: each module is imported in a fresh interpreter."""

import importlib.util
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "vllm")
LIGHT = ["loadtest", "controllers", "models.engine", "models.families", "models.stops", "models.logprobs"]
LIGHT += ["models.admission", "models.registry", "models.memory"]
EDGES = [f"{folder}.{name}" for folder in ("server", "training", "loadtest") for name in ("cli", "config")]
PRESENT = [*LIGHT, *(edge for edge in EDGES if importlib.util.find_spec(edge))]


@pytest.mark.parametrize("module", PRESENT)
def test_importing_pulls_in_no_model_library(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
