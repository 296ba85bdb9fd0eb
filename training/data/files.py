"""Questions out of JSON lines, out of what `datasets` reads, and out of reasoning-gym."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from training.data.errors import UserError
from training.data.questions import Split, TrainingQuestion, split_of

TEXTS = ("answer", "thinking", "direct", "chosen", "rejected")
NAMES = ("prompt", "messages", "difficulty", *TEXTS)


def read_file(path: Path, columns: Mapping[str, str], where: Mapping[str, Any]) -> Iterator[TrainingQuestion]:
    """The questions of a file of JSON lines. UserError names the file and the line that is none."""
    rows = ((row_in(line, origin), origin) for origin, line in lines_of(path))
    return (question_of(row, columns, origin) for row, origin in rows if _has(row, where, origin))


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not empty, and where each stands."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def row_in(line: str, origin: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{origin}: no JSON: {error}") from error


def _has(row: Any, where: Mapping[str, Any], origin: str) -> bool:
    """Whether a row's columns have those values. What is no row is left to `question_of`."""
    if not isinstance(row, Mapping):
        return True
    if absent := [name for name in where if name not in row]:
        raise UserError(f"{origin}: there is no column {absent[0]!r}; there are: {', '.join(map(str, row))}")
    return all(row[name] == value for name, value in where.items())


def read_dataset(
    name: str, part: str, columns: Mapping[str, str], where: Mapping[str, Any]
) -> Iterator[TrainingQuestion]:
    """The questions of a hub's data set, of a folder that `datasets` saved, or of a local file."""
    import datasets

    path = Path(name)
    try:
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            found = datasets.load_from_disk(name)
            rows = found[part] if isinstance(found, datasets.DatasetDict) else found
        elif path.is_file():
            if part != "train":
                raise ValueError(f"a file has no part {part!r}")
            kind = {".jsonl": "json", "": "json"}.get(path.suffix, path.suffix.removeprefix("."))
            rows = datasets.load_dataset(kind, data_files=name, split="train")
        else:
            rows = datasets.load_dataset(name, split=part)
    except (OSError, KeyError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"data.dataset {name!r} cannot be read: {error}") from error
    for number, row in enumerate(rows):
        if _has(row, where, f"{name}[{number}]"):
            yield question_of(row, columns, f"{name}[{number}]")


def question_of(row: Any, columns: Mapping[str, str], origin: str) -> TrainingQuestion:
    """One row as a question. UserError says what is wrong with it, and where."""

    def wrong(text: str) -> UserError:
        return UserError(f"{origin}: {text}")

    if not isinstance(row, Mapping):
        raise wrong(f"an object is needed, not {row!r:.80}")
    if absent := [name for name in columns.values() if name not in row]:
        raise wrong(f"there is no column {absent[0]!r}; there are: {', '.join(map(str, row))}")
    values = {name: row.get(columns.get(name, name)) for name in NAMES}
    for name in TEXTS:
        if isinstance(values[name], int | float) and not isinstance(values[name], bool):
            values[name] = str(values[name])
        if not isinstance(values[name], str | None):
            raise wrong(f"{columns.get(name, name)} must be text, not {values[name]!r:.80}")
    messages = _messages(values["prompt"] if values["messages"] is None else values["messages"])
    if not messages:
        raise wrong("a question needs `prompt`, a text, or `messages`, of which the last is the user's")
    difficulty = values["difficulty"] or 0
    if isinstance(difficulty, bool) or not isinstance(difficulty, int) or difficulty < 0:
        raise wrong(f"difficulty must be a whole number from 0 on, not {difficulty!r:.80}")
    return TrainingQuestion(
        text=messages[-1]["content"],
        earlier=tuple(messages[:-1]),
        thought=values["thinking"] or "",
        answer=values["answer"] or "",
        direct=values["direct"],
        chosen=values["chosen"],
        rejected=values["rejected"],
        difficulty=difficulty,
        origin=origin,
    )


def _messages(value: Any) -> list[Mapping[str, Any]]:
    """A prompt as messages; none where it is no prompt."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    good = isinstance(value, Sequence) and all(
        isinstance(one, Mapping) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in value
    )
    return list(value) if good and value and value[-1]["role"] == "user" else []


class GymQuestions:
    """A family of reasoning-gym, without end. Its own scorer decides; only a score of exactly 1 is right."""

    def __init__(self, family: str, settings: Mapping[str, Any], test_share: float) -> None:
        try:
            import reasoning_gym
        except ImportError as error:
            raise UserError("data.gym needs the package reasoning-gym") from error
        self.test_share, self.name = test_share, f"data.gym {family!r}"
        try:
            self._gym = reasoning_gym.create_dataset(family, size=2**31 - 1, seed=0, **settings)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"{self.name}: {error}") from error

    def draw(self, difficulties: Sequence[int], count: int, split: Split, rng: Random) -> list[TrainingQuestion]:
        found: list[TrainingQuestion] = []
        while len(found) < count:
            entry = self._gym[rng.randrange(2**31 - 1)]
            if split_of(entry["question"], self.test_share) == split:
                asked = TrainingQuestion(entry["question"], answer=str(entry["answer"]), origin=self.name, entry=entry)
                found.append(asked)
        return found

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        return [
            float(self._gym.score_answer(answer.strip(), entry=question.entry) == 1) for question, answer in answers
        ]
