"""A micro model and recipes that finish in seconds. Tests run in the repository root, on one thread."""

from pathlib import Path

import pytest
import torch

from training.config import Hft, Hgpo

SCRATCH = {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 64, "context": 256}
TASK = {"name": "chain", "difficulties": [1, 2]}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def hft_recipe(tmp_path: Path) -> Hft:
    return Hft.model_validate(
        {
            "model": {"path": "demo/tokenizer", "scratch": SCRATCH},
            "task": TASK,
            "optimizer": {"lr": 1e-2, "matrix_lr": 0.02, "warmup": 2, "decay_from": 0.5},
            "run": {"out": str(tmp_path / "hft"), "log_every": 1},
            "steps": 6,
            "questions": 4,
            "micro_batch": 4,
        }
    )


@pytest.fixture
def hgpo_recipe(tmp_path: Path) -> Hgpo:
    return Hgpo.model_validate(
        {
            "model": {"path": "demo/tokenizer", "scratch": SCRATCH},
            "task": TASK,
            "optimizer": {"lr": 1e-3},
            "run": {"out": str(tmp_path / "hgpo"), "log_every": 1},
            "steps": 2,
            "questions": 2,
            "replies": 4,
            "micro_batch": 8,
            "max_new_tokens": 8,
        }
    )
