"""What the measurements of Speculative Thinking share: the demo pair's questions, and a configuration over any pair."""

from pathlib import Path
from random import Random

from server.config import Config, parse_config
from tests.processes import ROOT
from training.tasks import TASKS, Question, Split, draw

CONFIG = ROOT / "configs/speculative.toml"
TASK = "countdown"


def settings(small: Path, target: Path, config: Path = CONFIG) -> str:
    """The configuration's text with these models in place of the demo's."""
    text = config.read_text(encoding="utf-8")
    for name, path in (("demo/small", small), ("demo/target", target)):
        text = text.replace(f'"{name}"', f'"{path.resolve()}"')
    return text


def configured(small: Path, target: Path, config: Path = CONFIG) -> Config:
    return parse_config(settings(small, target, config), config.parent)


def questions(count: int, difficulties: tuple[int, ...], split: Split, seed: int) -> list[Question]:
    """Different questions, as many of each difficulty as of the next."""
    rng, found = Random(seed), {}
    for number in range(20 * count):
        question = draw(TASKS[TASK], difficulties[number % len(difficulties)], split, rng)
        found.setdefault(question.text, question)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"there are no {count} different questions of difficulties {difficulties}")


def right(question: str, answer: str) -> bool:
    return TASKS[TASK].is_correct(question, answer.strip())
