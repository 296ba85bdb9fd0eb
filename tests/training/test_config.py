"""Recipes: every shipped one is valid, and a wrong one is refused before anything loads."""

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from models.engines.base import InvalidRequest
from training import cli
from training.algorithms import METHODS
from training.algorithms.hft import HftRecipe
from training.algorithms.hgpo import HgpoRecipe
from training.algorithms.selfbudgeter import BudgetReward
from training.cli import main, read
from training.config.recipe import load
from training.data.checkers import CHECKERS
from training.data.errors import UserError

RECIPES = Path("configs/train")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_so_is_the_one_that_measures_it(path):
    recipe = read(path)
    if hasattr(recipe, "run") and recipe.run.evaluate is not None:
        assert read(recipe.run.evaluate).method in ("evaluate", "evaluate-budget")


def test_a_reward_in_which_a_right_reply_can_lose_is_refused():
    with pytest.raises(UserError, match="wrong"):
        BudgetReward.parse({"over": -0.6})


def test_an_override_reaches_a_nested_setting():
    recipe = HgpoRecipe.parse(load(RECIPES / "hybrid_hgpo.toml", ["advantage.delta=0.4", "run.out=elsewhere"]))
    assert recipe.advantage.delta == 0.4
    assert recipe.run.out == Path("elsewhere")


def test_an_unknown_key_is_refused():
    with pytest.raises(UserError, match="stepz"):
        HftRecipe.parse(load(RECIPES / "hybrid_hft.toml", ["stepz=1"]))


def test_an_override_without_a_value_is_refused():
    with pytest.raises(ValueError, match="key=value"):
        load(RECIPES / "hybrid_hft.toml", ["steps"])


def test_a_wrong_recipe_ends_with_a_message_and_status_2(capsys):
    assert main([str(RECIPES / "hybrid_hft.toml"), "--set", "steps=-1"]) == 2
    assert "steps" in capsys.readouterr().err
    assert main([str(RECIPES / "hybrid_hft.toml"), "--set", "method=sft"]) == 2
    assert "'sft' is none of hft, hgpo, grpo" in capsys.readouterr().err


def test_a_run_is_measured_by_what_measures(capsys):
    path = RECIPES / "english_merge.toml"
    assert main([str(RECIPES / "hybrid_hft.toml"), "--set", f"run.evaluate={path}"]) == 2
    assert "measures nothing" in capsys.readouterr().err


def test_settings_of_an_engine_that_nobody_asked_for_are_refused():
    with pytest.raises(UserError, match="generation"):
        read(RECIPES / "hybrid_hgpo.toml", ["engine.max_model_len=128"])


def test_what_does_not_train_has_nothing_to_go_on_from(capsys):
    assert main([str(RECIPES / "english_merge.toml"), "--resume"]) == 2
    assert "nothing to go on from" in capsys.readouterr().err


def test_neither_the_command_line_nor_the_recipes_import_torch():
    code = (
        "import sys, training.cli, training.config; "
        "print([m for m in ('torch', 'transformers', 'vllm', 'trl') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_recipes_that_documents_name_are_there():
    pages = [*Path("docs").glob("**/*.md"), Path("README.md")]
    named = {name for page in pages for name in re.findall(r"configs/train/[\w.]+\.toml", page.read_text())}
    assert "configs/train/own_hgpo.toml" in named
    assert [name for name in named if not Path(name).exists()] == []


def test_the_page_names_every_method_and_checker():
    page = Path("docs/training.md").read_text()
    assert [name for name in (*METHODS, *CHECKERS) if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."), 2, "a smaller micro_batch"),
        (ConnectionRefusedError("no vLLM server"), 2, "no vLLM server"),
        (InvalidRequest("the chat template refuses this", "messages"), 2, "the chat template refuses this"),
    ],
)
def test_what_the_user_can_mend_is_told_in_a_line(error, status, told, monkeypatch, capsys):
    monkeypatch.setattr(cli, "run", Mock(side_effect=error))
    assert main([str(RECIPES / "hybrid_hft.toml")]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line


def test_any_other_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "run", Mock(side_effect=RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main([str(RECIPES / "hybrid_hft.toml")])
