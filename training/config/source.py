"""The `[data]` section of a recipe: the one place that says where questions come from and how answers are checked."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, SerializeAsAny, model_validator

from training.config.recipe import Recipe
from training.data.checkers import Checker, ExactChecker, checker_of, import_name
from training.data.errors import UserError
from training.data.questions import TEST_SHARE, GeneratedQuestions, QuestionSource, ReadQuestions

Column = Literal["prompt", "messages", "answer", "thinking", "direct", "difficulty", "chosen", "rejected"]
KINDS = ("task", "file", "dataset", "gym")


class DataSection(Recipe):
    """Questions from exactly one of: `task`, a Python class that draws them ("module:Class"); `file`, JSON lines;
    `dataset`, a name on the Hugging Face hub or a local file or folder for `datasets`; `gym`, a reasoning-gym family.

    `columns` says which column of a file or data set holds what, where its name is another. `checker` scores answers,
    but those to a task or gym, which check themselves. `where` keeps the rows whose columns have these values.
    `difficulties`: each question's is drawn uniformly from the list; an empty list takes all. `settings` are a gym
    family's.
    """

    task: str | None = None
    file: Path | None = None
    dataset: str | None = None
    gym: str | None = None
    part: str = "train"
    columns: dict[Column, str] = Field(default_factory=dict)
    where: dict[str, Any] = Field(default_factory=dict)
    checker: Annotated[SerializeAsAny[Checker], BeforeValidator(checker_of)] = ExactChecker()
    difficulties: tuple[NonNegativeInt, ...] = ()
    test_share: float = Field(TEST_SHARE, ge=0, le=1)
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"data takes one of {', '.join(KINDS)}; given: {', '.join(given) or 'none'}")
        if given[0] in ("task", "gym"):
            self.refuse_unread(("columns", "where", "checker"), f"a {given[0]} has no columns, and checks itself")
        if given[0] == "task":
            self.refuse_unread(("test_share",), "a task's questions are split by their text alone")
        if given[0] == "gym":
            self.refuse_unread(("difficulties",), "a gym's `settings` say how hard its questions are")
        else:
            self.refuse_unread(("settings",), "they are a gym's")
        if given[0] != "dataset":
            self.refuse_unread(("part",), "only a dataset has parts")
        return self


def open_source(section: DataSection | None) -> QuestionSource:
    """What the section describes, read and ready; no question where there is no section. UserError names
    the file and line that is not as it should be."""
    if section is None:
        return ReadQuestions((), ExactChecker(), "a recipe without data", 0)
    if section.task is not None:
        return GeneratedQuestions(_task(section.task))
    from training.data import files

    if section.gym is not None:
        return files.GymQuestions(section.gym, section.settings, section.test_share)
    read = (
        partial(files.read_file, section.file)
        if section.file
        else partial(files.read_dataset, str(section.dataset), section.part)
    )
    questions = read(section.columns, section.where)
    return ReadQuestions(questions, section.checker, str(section.file or section.dataset), section.test_share)


def _task(name: str) -> Any:
    try:
        task = import_name(name)()
    except TypeError as error:
        raise UserError(f"data.task {name!r} must need no arguments: {error}") from error
    if absent := [part for part in ("difficulties", "draw", "is_correct") if not hasattr(task, part)]:
        raise UserError(f"data.task {name!r} has no {absent[0]}")
    return task
