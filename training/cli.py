"""`reasond-train`: runs a recipe file. Nothing heavy is imported before the recipe is read and valid."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from training import config

DESCRIPTION = "Makes hybrid-reasoning models: Hybrid Fine-Tuning, Hybrid Group Policy Optimization, evaluation."
COMMANDS = {
    "hft": "Hybrid Fine-Tuning: teach both modes",
    "hgpo": "Hybrid Group Policy Optimization: teach when to use which",
    "grpo": "GRPO with a rule reward: a judge learns from whether its verdicts are right",
    "evaluate": "accuracy, tokens, think ratio and Hybrid Accuracy on fresh questions",
}


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="reasond-train", description=DESCRIPTION)
    commands = main_parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("recipe", type=Path, help="a TOML file, such as those in configs/train/")
        command.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
        )
        if name != "evaluate":
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
    elif command == "grpo":
        recipe_grpo = config.Grpo.model_validate(table)
        from training import grpo

        grpo.train(recipe_grpo, resume)
    else:
        recipe_evaluate = config.Evaluate.model_validate(table)
        from training import evaluate

        print(evaluate.main(recipe_evaluate))


if __name__ == "__main__":
    sys.exit(main())
