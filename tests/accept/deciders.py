"""Deciders on hybrid models, through the server: `python -m tests.accept.deciders [NAME] [--out FILE]`.

Three steps a model. Replies to training questions teach the classifier. The deciders with a score are calibrated on
test questions. Then every decider is compared as it is served, as it is and calibrated, on test questions on which no
threshold was fitted or chosen. Replies, calibrations and plots stay in `runs/deciders`; `--out` keeps the figures.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from demo.tasks.chain import Chain
from demo.tasks.english import English
from demo.tasks.mixed import Mixed
from tests.processes import ROOT, reasond
from training.classifier import RatedConversation, fit_classifier
from training.config.sections import CalibrateRecipe, SampleRecipe
from training.data.questions import Task
from training.data.samples import by_question, read_samples
from training.evaluation import calibrate
from training.evaluation.thresholds import side_of
from training.sampling import sample

SCORED: Mapping[str, str] = {
    "probe": "",
    "ask": "",
    "draft": "signal = 'mean'",
    "agree": "drafts = 4",
    "classifier": "weights = '{out}/classifier.json'",
}
"""Deciders with a score, and their settings."""
UNSCORED: Mapping[str, str] = {"model": "", "random": "rate = 0.5", "hint": ""}
NEED_TOKENS = ("model", "probe")
RAW = "raw_threshold = 0.1"  # of a draft without a calibration
CALIBRATED = "calibration = '{out}/calibration.json'"
LINKS = ("classifier", "draft")
ENGINE = """
[engines.demo]
kind = "vllm"
model = "{model}"
args = {{ max_model_len = 2048, block_size = 32, max_num_seqs = 128, enforce_eager = true }}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1", VLLM_CPU_OMP_THREADS_BIND = "nobind", OMP_NUM_THREADS = "1" }}
"""
ROUTE = """
[routes.{name}]
engine = "demo"
family = "{family}"
sampling = {{ temperature = {temperature} }}
auto = {auto}
"""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A model with both modes, and the questions it is asked: how many a classifier learns from, deciders are
    calibrated on, and they are compared on. `tokens`: it has mode tokens, and was taught when to use them."""

    model: str
    family: str
    task: type[Task]
    difficulties: Sequence[int]
    temperature: float
    max_new_tokens: int
    tokens: bool = False
    learnt: int = 400
    chosen: int = 1000
    compared: int = 500


HYBRIDS: Mapping[str, Hybrid] = {
    "hybrid": Hybrid("demo/hybrid", "lhrm", Chain, (1, 1, 1, 2, 3, 4), 1.0, 64, tokens=True),
    "plain": Hybrid("demo/plain", "qwen3", Mixed, (1, 1, 1, 2, 3, 4, 5, 6), 0.6, 640),
    "english": Hybrid(
        "build/english", "lhrm", English, (0, 0, 1, 1, 2, 3), 0.0, 160, learnt=150, chosen=360, compared=160
    ),
}


class Unseen:
    """The questions of a task on which no threshold is fitted or chosen."""

    def __init__(self, task: Task) -> None:
        self._task, self.difficulties, self.is_correct = task, task.difficulties, task.is_correct

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        while True:
            question = self._task.draw(difficulty, rng)
            if side_of(question[0]) == "report":
                return question


unseen_hybrid, unseen_plain, unseen_english = (partial(Unseen, one.task()) for one in HYBRIDS.values())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", default=list(HYBRIDS), metavar="NAME")
    options.add_argument("--out", type=Path, help="a JSON file, in which other models are kept")
    options.add_argument("--resume", action="store_true")
    asked = options.parse_args()
    for name in asked.names:
        found = Measurement(name, asked.resume).run()
        if asked.out:
            kept = json.loads(asked.out.read_text()) if asked.out.exists() else {}
            lines = (f"{json.dumps(model)}: {json.dumps(figures)}" for model, figures in {**kept, name: found}.items())
            asked.out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


class Measurement:
    """That of one model."""

    def __init__(self, name: str, resume: bool) -> None:
        self.name, self.hybrid, self.resume = name, HYBRIDS[name], resume
        self.out = ROOT / "runs/deciders" / name
        self.out.mkdir(parents=True, exist_ok=True)
        self.scored = [each for each in SCORED if self.hybrid.tokens or each not in NEED_TOKENS]
        self.unscored = [each for each in UNSCORED if self.hybrid.tokens or each not in NEED_TOKENS]

    def run(self) -> dict[str, Any]:
        """What calibrating found, and the comparison."""
        with reasond(self.served({"random": self.auto("random")})) as (url, _):
            self.teach(url)
        with reasond(self.served({each: self.auto(each) for each in self.scored})) as (url, _):
            print(calibrate.main(self.recipe(url, self.scored, self.hybrid.chosen, max_loss=0.02), self.resume))
        with reasond(self.served(dict(self.compared()))) as (url, _):
            names = [name for name, _ in self.compared()]
            print(calibrate.main(self.recipe(url, names, self.hybrid.compared), self.resume), flush=True)
        files = ("calibration.json", "compared/comparison.json")
        chosen, compared = (json.loads((self.out / file).read_text()) for file in files)
        deciders = {
            name: {part: own[part] for part in ("threshold", "promise", "curve")}
            for name, own in chosen["deciders"].items()
        }
        return rounded({"questions": compared["questions"], "ways": compared["ways"], "deciders": deciders})

    def compared(self) -> Iterable[tuple[str, str]]:
        """The routes of the comparison: each decider as it is, those with a score calibrated too, and a chain."""
        for each in (*self.unscored, *self.scored):
            yield each, self.auto(each)
        for each in self.scored:
            yield f"{each}-calibrated", self.auto(each, calibrated=True)
        links = ", ".join(self.auto(each, calibrated=True) for each in LINKS)
        yield "chain", table("chain", f"links = [{links}]")

    def auto(self, decider: str, *, calibrated: bool = False) -> str:
        """A route's decider, as TOML."""
        own = {**SCORED, **UNSCORED}[decider].format(out=self.out)
        return table(decider, own, CALIBRATED.format(out=self.out) if calibrated else RAW if decider == "draft" else "")

    def served(self, routes: Mapping[str, str]) -> Path:
        """The configuration that serves the model behind each of these routes."""
        hybrid, config = self.hybrid, self.out / "served.toml"
        told = {"family": hybrid.family, "temperature": hybrid.temperature}
        text = [ROUTE.format(name=name, auto=auto, **told) for name, auto in routes.items()]
        config.write_text(ENGINE.format(model=ROOT / hybrid.model) + "".join(text), encoding="utf-8")
        return config

    def teach(self, url: str) -> None:
        """The classifier, from replies to training questions."""
        recipe = SampleRecipe.parse(
            {
                **self.asked(url, "random", self.hybrid.learnt),
                "data": {"task": self.task(self.hybrid.task), "difficulties": self.hybrid.difficulties},
                "out": self.out / "learnt.jsonl",
                "modes": ("think", "no_think"),
                "temperature": None,
            }
        )
        sample.main(recipe, self.resume)
        rated = []
        for replies in by_question(read_samples(recipe.out)):
            rates = [[one.right for one in replies if one.asked == mode] for mode in recipe.modes]
            rated.append(RatedConversation(replies[0].question.messages, *(sum(each) / len(each) for each in rates)))
        (self.out / "classifier.json").write_text(json.dumps(fit_classifier(rated)))

    def recipe(self, url: str, routes: Sequence[str], count: int, **goal: float) -> CalibrateRecipe:
        task = self.task(self.hybrid.task) if goal else f"tests.accept.deciders:unseen_{self.name}"
        return CalibrateRecipe.parse(
            {
                **self.asked(url, routes[0], count),
                "data": {"task": task, "difficulties": self.hybrid.difficulties},
                "part": "test",
                "out": self.out if goal else self.out / "compared",
                "samples": 2 if self.hybrid.temperature else 1,
                "deciders": routes[1:],
                **goal,
            }
        )

    def asked(self, url: str, route: str, count: int) -> dict[str, Any]:
        return {
            "route": {"url": url, "model": route, "concurrency": 32},
            "questions": count,
            "max_new_tokens": self.hybrid.max_new_tokens,
        }

    @staticmethod
    def task(task: type[Task]) -> str:
        return f"{task.__module__}:{task.__name__}"


def rounded(value: Any) -> Any:
    """With four digits behind each point."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def table(decider: str, *settings: str) -> str:
    """A decider's settings as a table of TOML in one line."""
    return "{ " + ", ".join(each for each in (f'decider = "{decider}"', "patience = 60", *settings) if each) + " }"


if __name__ == "__main__":
    main()
