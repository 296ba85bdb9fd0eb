"""The table of methods: one added at run time, the files that a step runs through, and settings that nobody reads."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from tests.processes import ROOT
from tests.training.conftest import train
from training import cli, run_artifacts, trl_adapter
from training.algorithms import METHODS, TrainingMethod, grpo
from training.config.recipe import Recipe
from training.config.sections import ModelSection
from training.data.errors import UserError
from training.plain_head import log_probabilities

RECIPES = Path("configs/train")


class CountingRecipe(Recipe):
    method: Literal["counting"] = "counting"
    out: Path
    up_to: int = 3


def test_a_method_is_one_line_in_the_table(tmp_path, monkeypatch, capsys):
    def main(recipe: CountingRecipe) -> str:
        return " ".join(map(str, range(recipe.up_to)))

    method = TrainingMethod(CountingRecipe, lambda: main, "counts", trains=False, resumes=False)
    monkeypatch.setitem(METHODS, "counting", method)
    recipe = tmp_path / "counting.toml"
    recipe.write_text('method = "counting"\nout = "nowhere"\n')
    assert cli.main([str(recipe), "--set", "up_to=4"]) == 0
    assert capsys.readouterr().out == "0 1 2 3\n"
    assert cli.main([str(recipe), "--set", "up=4"]) == 2
    assert "up: Extra inputs" in capsys.readouterr().err
    assert "counting         counts" in cli.parser().format_help()


def test_every_recipe_of_the_table_bears_its_name():
    assert all(method.recipe.model_fields["method"].default == name for name, method in METHODS.items())


def test_an_hgpo_step_runs_through_few_of_our_files(hgpo_recipe, monkeypatch):
    """From the prompt to the gradient and the log. What is named here stands in docs/training.md, in this order."""
    seen: Counter[str] = Counter()

    def profile(frame, event, argument):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(ROOT)) and "/tests/" not in path and "/.venv/" not in path:
            seen[str(Path(path).relative_to(ROOT))] += 1

    begin, log = run_artifacts.MetricsFile.on_train_begin, run_artifacts.MetricsFile.on_train_end

    def begun(self, *arguments, **named):
        begin(self, *arguments, **named)
        sys.setprofile(profile)

    def ended(self, *arguments, **named):
        sys.setprofile(None)
        log(self, *arguments, **named)

    monkeypatch.setattr(run_artifacts.MetricsFile, "on_train_begin", begun)
    monkeypatch.setattr(run_artifacts.MetricsFile, "on_train_end", ended)
    trained = hgpo_recipe.model_copy(update={"model": ModelSection(path="demo/hybrid"), "max_new_tokens": 24})
    train(trained)
    page = Path("docs/training.md").read_text()
    assert all(f"`{path}`" in page for path in seen), sorted(seen)
    assert len([path for path in seen if not path.startswith("demo/")]) <= 10, sorted(seen)
    assert {"training/algorithms/hgpo.py", "demo/tasks/chain.py"} <= seen.keys()


@pytest.mark.parametrize(
    ("recipe", "settings", "key"),
    [
        ("english_hgpo", ["optimizer.matrix_lr=0.01"], "optimizer.matrix_lr"),
        ("english_hft", ["optimizer.matrix_lr=0.01"], "optimizer.matrix_lr"),
        ("qwen3_0.6b_hft", ["optimizer.momentum=0.9"], "momentum"),
        ("qwen3_0.6b_hft", ["optimizer.matrix_weight_decay=0.9"], "matrix_weight_decay"),
        ("qwen3_0.6b_hft", ["easy_share=0.5"], "easy_share"),
        ("qwen3_0.6b_hft", ["easy=[1]"], "easy"),
        ("english_last_hft", ["paired=true"], "modes_at"),
        ("english_hgpo", ["model.lora.rank=4"], "rank"),
        ("hybrid_hft", ['model.dtype="bfloat16"'], "dtype"),
        ("hybrid_hft", ["model.lora.rank=4"], "lora"),
        ("hybrid_hgpo", ["engine.max_model_len=128"], "engine"),
        ("hybrid_hgpo", ['scale_rewards="none"'], "scale_rewards"),
        ("hybrid_hgpo", ["data.columns.answer=a"], "columns"),
        ("hybrid_hgpo", ["data.test_share=0.5"], "test_share"),
        ("hybrid_hgpo", ["data.part=train2"], "part"),
        ("hybrid_hgpo", ["data.settings.size=4"], "settings"),
        ("hybrid_evaluate", ["model.lora.rank=4"], "model.lora"),
        ("judge_evaluate", ["margin=0.1"], "margin"),
        ("selfbudgeter_start", ["easy=[1]", "easy_share=0.5"], "easy"),
        ("selfbudgeter_data", ["budgets=[50]"], "budgets"),
    ],
)
def test_a_setting_that_nobody_reads_is_refused_by_name(recipe, settings, key):
    with pytest.raises(UserError, match=rf"\b{key} is not read: "):
        cli.read(RECIPES / f"{recipe}.toml", settings)


def test_grpo_reads_which_head_it_is_to_take(hgpo_recipe, monkeypatch):
    asked: list[int] = []

    def counted(*arguments):
        asked.append(1)
        return log_probabilities(*arguments)

    monkeypatch.setattr(trl_adapter, "log_probabilities", counted)
    settings = {name: getattr(hgpo_recipe, name) for name in hgpo_recipe.model_fields_set}
    for fused_head in (True, False):
        train(grpo.GrpoRecipe(**{**settings, "fused_head": fused_head}))
        assert bool(asked) != fused_head


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def main(recipe: CountingRecipe) -> str:
        raise ValueError("a mistake of ours")

    monkeypatch.setitem(METHODS, "counting", TrainingMethod(CountingRecipe, lambda: main, "", False, False))
    recipe = tmp_path / "counting.toml"
    recipe.write_text('method = "counting"\nout = "nowhere"\n')
    with pytest.raises(ValueError, match="a mistake of ours"):
        cli.main([str(recipe)])
