"""`reasond-train`: runs a recipe file. Nothing heavy is imported before the recipe is read and valid."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from training import config

DESCRIPTION = "Makes the models that reasond serves, and measures them."
COMMANDS = {
    "hft": "LHRM, stage I. Hybrid Fine-Tuning: teach both modes",
    "hgpo": "LHRM, stage II. Hybrid Group Policy Optimization: teach when to use which",
    "evaluate": "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions",
    "budget-sft": "SelfBudgeter's base, or (with data) its cold start: declare a budget and keep it",
    "budget-data": "SelfBudgeter, stage 1: the base's reply to each training question, and its length",
    "selfbudgeter": "SelfBudgeter, stage 3. Budget-guided GRPO: declare small budgets that suffice",
    "evaluate-budget": "accuracy, tokens and adherence to budgets on fresh questions, against the base",
}
RESUMABLE = ("hft", "hgpo", "budget-sft", "selfbudgeter")


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="reasond-train", description=DESCRIPTION)
    commands = main_parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("recipe", type=Path, help="a TOML file, such as those in configs/train/")
        command.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
        )
        if name in RESUMABLE:
            command.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    return main_parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        table = config.load(arguments.recipe, arguments.overrides)
        run(arguments.command, table, getattr(arguments, "resume", False))
    except (ValidationError, ValueError, OSError) as error:
        print(f"reasond-train: {arguments.recipe}: {error}", file=sys.stderr)
        return 2
    return 0


def run(command: str, table: dict[str, object], resume: bool) -> None:
    """Validates the recipe, then imports what runs it."""
    if command == "hft":
        recipe = config.Hft.model_validate(table)
        from training import hft

        hft.train(recipe, resume)
    elif command == "hgpo":
        recipe_hgpo = config.Hgpo.model_validate(table)
        from training import hgpo

        hgpo.train(recipe_hgpo, resume)
    elif command == "evaluate":
        recipe_evaluate = config.Evaluate.model_validate(table)
        from training import evaluate

        print(evaluate.main(recipe_evaluate))
    else:
        run_budget(command, table, resume)


def run_budget(command: str, table: dict[str, object], resume: bool) -> None:
    """The commands of SelfBudgeter."""
    if command == "budget-sft":
        recipe = config.BudgetSft.model_validate(table)
        from training import budget_sft

        budget_sft.train(recipe, resume)
    elif command == "budget-data":
        recipe_data = config.BudgetData.model_validate(table)
        from training import budget_data

        print(budget_data.main(recipe_data))
    elif command == "selfbudgeter":
        recipe_grpo = config.SelfBudgeter.model_validate(table)
        from training import selfbudgeter

        selfbudgeter.train(recipe_grpo, resume)
    else:
        recipe_evaluate = config.EvaluateBudget.model_validate(table)
        from training import evaluate_budget

        print(evaluate_budget.main(recipe_evaluate))


if __name__ == "__main__":
    sys.exit(main())
