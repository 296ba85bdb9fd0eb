"""Config, help and the pure parts must not pay for torch: each module is imported in a fresh interpreter."""

import importlib.util
import pkgutil
import subprocess
import sys

import pytest

import controllers
import loadtest
from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "vllm")
LIGHT = [
    "models.engines.base",
    "models.formats",
    "models.text.stop_strings",
    "models.engines",
    "models.memory",
]
LIGHT += [
    module.name
    for folder in (controllers, loadtest)
    for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
]
EDGES = [f"{folder}.{name}" for folder in ("server", "training", "loadtest") for name in ("cli", "config")]
PRESENT = [*LIGHT, *(edge for edge in EDGES if importlib.util.find_spec(edge))]


@pytest.mark.parametrize("module", PRESENT)
def test_importing_pulls_in_no_model_library(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
