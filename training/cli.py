"""`reasond-train`: runs a recipe file. Nothing heavy is imported before the recipe is read and valid."""

import argparse
import errno
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.engines.base import InvalidRequest
from training.algorithms import METHODS
from training.config.recipe import Recipe, load, overridden
from training.config.sections import EvaluateBudgetRecipe, EvaluateRecipe, RunSection
from training.config.source import DataSection
from training.data.check import report
from training.data.errors import UserError

PLACE_TROUBLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR),  # a file where a folder is to be, or the other way round
)
NO_MEMORY = ("out of memory", "can't allocate memory")
"""How torch says it, of a GPU and of a CPU."""
DESCRIPTION = "Makes the models that reasond serves, and measures them."


def parser() -> argparse.ArgumentParser:
    methods = "\n".join(f"  {name:16} {method.summary}" for name, method in METHODS.items())
    main_parser = argparse.ArgumentParser(
        prog="reasond-train",
        description=DESCRIPTION,
        epilog=f"what a recipe's `method` may be:\n{methods}\n\n`reasond-train data check FILE` looks at data.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main_parser.add_argument(
        "recipe", type=Path, help="a TOML file, such as those in configs/train/; or a method, all of it in --set"
    )
    main_parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
    )
    main_parser.add_argument("--resume", action="store_true", help="go on from where the run was stopped")
    main_parser.add_argument("--no-evaluate", action="store_true", help="end without the recipe's evaluation")
    return main_parser


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 for what the user can mend, told in a line. Any other error keeps its traceback."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["data"]:
        return check_data(given[1:])
    arguments = parser().parse_args(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended
    try:
        recipe = read(arguments.recipe, arguments.overrides)
        run(recipe, arguments.resume, not arguments.no_evaluate)
    except KeyboardInterrupt:
        print(f"\nreasond-train: {arguments.recipe}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if (told := _mendable(error)) is None:
            raise
        print(f"reasond-train: {arguments.recipe}: {told}", file=sys.stderr)
        return 2
    return 0


def _mendable(error: Exception) -> str | None:
    """What the user is told of an error that they can mend; None for any other."""
    of_a_place = isinstance(error, OSError) and error.errno in PLACE_TROUBLE
    if of_a_place or isinstance(error, UserError | InvalidRequest | ConnectionError):
        return str(error)
    if isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY):
        return f"{str(error).splitlines()[0]}; a smaller micro_batch or max_new_tokens needs less"
    return None


def check_data(argv: Sequence[str]) -> int:
    """0 where a file of questions can be trained with, 1 where it has faults, 2 where it cannot be read."""
    data_parser = argparse.ArgumentParser(prog="reasond-train data", description="Looks at data before they train.")
    checking = data_parser.add_subparsers(required=True, metavar="ACTION").add_parser(
        "check", help="counts, lengths in tokens, duplicates, and what cannot be read or checked"
    )
    checking.add_argument("file", type=Path, help="JSON lines")
    checking.add_argument("--checker", default="exact", help="a checker's name, or its settings as a TOML table")
    checking.add_argument("--column", action="append", default=[], metavar="WHAT=NAME", help="answer=solution")
    checking.add_argument("--tokenizer", default=None, help="a model's folder or hub name, to count its tokens")
    arguments = data_parser.parse_args(argv)
    try:
        settings = [f"checker={arguments.checker}", *(f"columns.{column}" for column in arguments.column)]
        section = DataSection.parse(overridden({"file": arguments.file}, settings))
        count, unit = _counter(arguments.tokenizer)
        assert section.file is not None
        text, faults = report(section.file, section.columns, section.checker, section.test_share, count, unit)
    except UserError as error:
        print(f"reasond-train: {error}", file=sys.stderr)
        return 2
    print(text)
    return 1 if faults else 0


def _counter(tokenizer: str | None) -> tuple[Callable[[str], int], str]:
    """What measures a text, and its unit: a tokenizer's tokens, or else words."""
    if tokenizer is None:
        return lambda text: len(text.split()), "words"
    from models.text.tokenizer import HubTokenizer

    try:
        encode = HubTokenizer(tokenizer).encode
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer {tokenizer!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    return lambda text: len(encode(text)), "tokens"


def read(path: Path, overrides: Sequence[str] = ()) -> Any:
    """The recipe in a file, of its method's class; the name of a method stands for a file that says nothing else.
    UserError where it does not say what it is, or is not valid."""
    only_named = str(path) in METHODS and not path.exists()
    table = overridden({"method": str(path)}, overrides) if only_named else load(path, overrides)
    name = table.get("method")
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"method = {name!r} is none of {', '.join(METHODS)}")
    return METHODS[name].recipe.parse(table)


def run(recipe: Any, resume: bool = False, evaluates: bool = True) -> None:
    """Runs the recipe. What trains ends with its evaluation, on the main process."""
    method = METHODS[recipe.method]
    if resume and not method.resumes:
        raise UserError(f"{recipe.method} has nothing to go on from")
    evaluation = _evaluation(recipe.run) if method.trains and evaluates else None
    runner = method.load()
    if not method.trains:
        print(runner(recipe, resume) if method.resumes else runner(recipe))
        return
    runner(recipe, resume)
    if evaluation is not None and _is_main_process():
        gc.collect()  # the trainer, and what it holds of a GPU
        run(evaluation)


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _evaluation(settings: RunSection) -> Recipe | None:
    """The recipe that measures what a run leaves, read before it begins, so that a mistake in it is found then."""
    if settings.evaluate is None:
        return None
    recipe = read(settings.evaluate)
    if not isinstance(recipe, EvaluateRecipe | EvaluateBudgetRecipe):
        raise UserError(f"{settings.evaluate} measures nothing: its method is {recipe.method}")
    model = recipe.model.model_copy(update={"path": str(settings.out)})
    return recipe.model_copy(update={"model": model, "out": settings.out})


if __name__ == "__main__":
    sys.exit(main())
