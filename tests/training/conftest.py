"""A micro model and recipes that finish in seconds. Tests run in the repository root, on one thread."""

from pathlib import Path
from random import Random

import datasets
import huggingface_hub
import pytest
import torch

from models.text.tokenizer import HubTokenizer
from training.algorithms import METHODS
from training.algorithms.hft import HftRecipe
from training.algorithms.hgpo import HgpoRecipe
from training.algorithms.parts import Material
from training.config.sections import TrainingRecipe
from training.config.source import open_source
from training.data.questions import TrainingQuestion
from training.data.samples import SampledReply

SCRATCH = {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 64, "context": 256}
TASK = {"task": "demo.tasks.chain:Chain", "difficulties": [1, 2]}


def train(recipe: TrainingRecipe, resume: bool = False) -> None:
    """Runs a recipe as the command line does."""
    METHODS[recipe.method].load()(recipe, resume)


def material(recipe: TrainingRecipe) -> Material:
    """What a run would make its rows or parts from."""
    source, rng = open_source(recipe.data), Random(recipe.run.seed + 1)
    drawn = source.draw(recipe.data.difficulties, recipe.steps * recipe.questions, "train", rng) if recipe.data else ()
    return Material(HubTokenizer(recipe.model.path), source, drawn)


def sampled(question: TrainingQuestion, solution: list[int], right: bool) -> SampledReply:
    """A plain reply to a question, as `sample` keeps it."""
    kept = (len(solution), True, float(right), tuple(solution))
    return SampledReply(question, None, None, None, "", question.answer, *kept)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """A hub name that is no folder is refused at once."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hft_recipe(tmp_path: Path) -> HftRecipe:
    return HftRecipe.model_validate(
        {
            "model": {"path": "demo/tokenizer", "scratch": SCRATCH},
            "data": TASK,
            "optimizer": {"lr": 1e-2, "matrix_lr": 0.02, "warmup": 2, "decay_from": 0.5},
            "run": {"out": str(tmp_path / "hft"), "log_every": 1},
            "steps": 6,
            "questions": 4,
            "micro_batch": 4,
        }
    )


@pytest.fixture
def hgpo_recipe(tmp_path: Path) -> HgpoRecipe:
    return HgpoRecipe.model_validate(
        {
            "model": {"path": "demo/tokenizer", "scratch": SCRATCH},
            "data": TASK,
            "optimizer": {"lr": 1e-3},
            "run": {"out": str(tmp_path / "hgpo"), "log_every": 1},
            "steps": 2,
            "questions": 2,
            "replies": 4,
            "micro_batch": 8,
            "max_new_tokens": 8,
        }
    )
