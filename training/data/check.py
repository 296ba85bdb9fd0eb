"""`reasond-train data check`: what a file of questions holds, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.checkers import Checker
from training.data.errors import UserError
from training.data.files import lines_of, question_of, row_in
from training.data.questions import TrainingQuestion, split_of

SHOWN = 5
"""So many faults of a kind are told."""
PARTS: Mapping[str, Callable[[TrainingQuestion], str | None]] = {
    "prompt": lambda one: "\n".join(message["content"] for message in one.messages),
    "thinking": lambda one: one.thought,
    "answer": lambda one: one.answer,
    "direct": lambda one: one.direct,
    "chosen": lambda one: one.chosen,
    "rejected": lambda one: one.rejected,
}


def report(
    path: Path, columns: Mapping[Any, str], checker: Checker, test_share: float, count: Callable[[str], int], unit: str
) -> tuple[str, int]:
    """The page, and how many faults there are. Texts are measured by `count`, in `unit`."""
    questions: list[TrainingQuestion] = []
    faults: dict[str, list[str]] = {"lines that cannot be read": [], "answers that the checker cannot read": []}
    unread, unscored = faults.values()
    for origin, line in lines_of(path):
        try:
            question = question_of(row_in(line, origin), columns, origin)
        except UserError as error:
            unread.append(str(error))
            continue
        questions.append(question)
        try:
            checker.read_reference(question)
        except UserError as error:
            unscored.append(f"{origin}: {str(error).removeprefix(f'{origin}: ')}")
    if not questions and not unread:
        raise UserError(f"{path} holds no question")
    texts = Counter(question.text for question in questions)
    sides = Counter(split_of(question.text, test_share) for question in questions)
    levels = Counter(question.difficulty for question in questions)
    lines = [
        f"{path}: {len(questions)} questions, {sides['train']} to train and {sides['test']} to test",
        "difficulties: " + ", ".join(f"{level}: {n}" for level, n in sorted(levels.items())),
        f"duplicates: {len(questions) - len(texts)}",
        *_lengths(questions, count, unit),
    ]
    for name, found in faults.items():
        lines += [f"{name}: {len(found)}", *(f"  {fault}" for fault in found[:SHOWN])]
        lines += [f"  … {len(found) - SHOWN} more"] * (len(found) > SHOWN)
    return "\n".join(lines), len(unread) + len(unscored)


def _lengths(questions: Sequence[TrainingQuestion], count: Callable[[str], int], unit: str) -> list[str]:
    """A line for each part that any question has."""
    lines = []
    for name, part in PARTS.items():
        found = sorted(count(text) for question in questions if (text := part(question)))
        if found:
            low, middle, high = (found[int(share * (len(found) - 1))] for share in (0.1, 0.5, 0.9))
            lines.append(
                f"{name}: {len(found)} of them, {low} / {middle} / {high} {unit} (10, 50, 90 %), {found[-1]} most"
            )
    return lines
