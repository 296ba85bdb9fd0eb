"""What the measurements of Speculative Thinking share: questions, a configuration over any pair, a pair of scripts."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

from demo.tasks import TASKS
from models.engines.base import Engine, Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.config.load import Config, parse_config
from tests.controllers.stories import MARK, rambles
from tests.processes import ROOT
from training.data.questions import Split, TrainingQuestion, draw

CONFIG = ROOT / "configs/speculative.toml"
DRAFTS = ROOT / "configs/speculative-decoding.toml"
TASK = "countdown"
WORDS = ("try", "2*3=6,", "left", "9", "12/4", "so", "then")
PARAGRAPHS, CUES = 12, 0.3  # of a script's thought, and how many of them begin with a cue


def settings(small: Path, target: Path, config: Path = CONFIG, drafts: bool = False) -> str:
    """The configuration's text with these models in place of the demo's. `drafts`: with token-level speculative
    decoding, vLLM's own, as one more engine and route."""
    text = config.read_text(encoding="utf-8") + (DRAFTS.read_text(encoding="utf-8") if drafts else "")
    for name, path in (("demo/small", small), ("demo/target", target)):
        text = text.replace(f'"{name}"', f'"{path.resolve()}"')
    return text


def configured(small: Path, target: Path, config: Path = CONFIG, drafts: bool = False) -> Config:
    return parse_config(settings(small, target, config, drafts), config.parent)


def scripted(small: float, target: float) -> Mapping[str, Engine]:
    """The pair without models: both write thoughts in paragraphs, at so many milliseconds a token."""
    return {name: _script(name, delay / 1000) for name, delay in (("small", small), ("target", target))}


def _script(name: str, delay: float) -> Engine:
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        asked, _, reply = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition(MARK)
        return rambles(f"{name} {asked}", WORDS, CUES, PARAGRAPHS)(reply)

    return ScriptedEngine(tokenizer, script, name=name, first_token_delay=delay, token_delay=delay)


def questions(count: int, difficulties: tuple[int, ...], split: Split, seed: int) -> list[TrainingQuestion]:
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
