"""Deciders on the demo hybrid models, through the server: `python -m tests.accept.deciders [--questions N] [NAME]`.

Each model is served behind a route for each decider, and calibrated on test questions of its task. What comes of it is
written to `demo/NAME/deciders`: the table, the plot and the calibration; the replies stay in `runs/deciders`.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT, reasond
from training.algorithms import METHODS
from training.config.sections import CalibrateRecipe

KEPT = ("calibration.json", "calibration.md", "calibration.png")
DECIDERS: Mapping[str, str] = {
    "probe": "",
    "draft": "signal = 'mean', raw_threshold = 0.1",
    "model": "",
    "ask": "",
    "hint": "",
    "agree": "",
    "random": "rate = 0.5",
}
ENGINE = """
[engines.demo]
kind = "vllm"
model = "{model}"
args = {{ max_model_len = 2048, block_size = 32, max_num_seqs = 64, enforce_eager = true }}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1", VLLM_CPU_OMP_THREADS_BIND = "nobind", OMP_NUM_THREADS = "1" }}
"""
ROUTE = """
[routes.{decider}]
engine = "demo"
family = "{family}"
sampling = {{ temperature = {temperature} }}
auto = {{ decider = "{decider}", patience = 60, {settings} }}
"""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A model with both modes, the questions it is asked, and its deciders: the first is the route's own."""

    family: str
    task: str
    difficulties: Sequence[int]
    temperature: float
    max_new_tokens: int
    deciders: Sequence[str]


HYBRIDS: Mapping[str, Hybrid] = {
    "hybrid": Hybrid("lhrm", "demo.tasks.chain:Chain", (1, 1, 1, 2, 3, 4), 1.0, 64, tuple(DECIDERS)),
    "plain": Hybrid(
        "qwen3", "demo.tasks.mixed:Mixed", (1, 2, 3, 4, 5, 6), 0.6, 640, ("draft", "ask", "hint", "agree", "random")
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", default=list(HYBRIDS), metavar="NAME")
    options.add_argument("--questions", type=int, default=1000)
    options.add_argument("--resume", action="store_true")
    asked = options.parse_args()
    for name in asked.names:
        print(measure(name, asked.questions, asked.resume), flush=True)


def measure(name: str, questions: int, resume: bool) -> str:
    """The table of one model."""
    hybrid, out = HYBRIDS[name], ROOT / "runs/deciders" / name
    out.mkdir(parents=True, exist_ok=True)
    config = out / "served.toml"
    config.write_text(served(name, hybrid), encoding="utf-8")
    with reasond(config) as (url, _):
        recipe = recipe_of(hybrid, url, out, questions)
        table = str(METHODS["calibrate"].load()(recipe, resume))
    kept = ROOT / "demo" / name / "deciders"
    kept.mkdir(exist_ok=True)
    for file in KEPT:
        shutil.copy(out / file, kept / file)
    return table


def served(name: str, hybrid: Hybrid) -> str:
    """The model behind a route for each of its deciders."""
    told = {"family": hybrid.family, "temperature": hybrid.temperature}
    routes = [ROUTE.format(decider=each, settings=DECIDERS[each], **told) for each in hybrid.deciders]
    return ENGINE.format(model=ROOT / "demo" / name) + "".join(routes)


def recipe_of(hybrid: Hybrid, url: str, out: Path, questions: int) -> CalibrateRecipe:
    return CalibrateRecipe.parse(
        {
            "route": {"url": url, "model": hybrid.deciders[0], "concurrency": 16},
            "data": {"task": hybrid.task, "difficulties": hybrid.difficulties},
            "part": "test",
            "out": out,
            "questions": questions,
            "samples": 2,
            "deciders": hybrid.deciders[1:],
            "max_new_tokens": hybrid.max_new_tokens,
            "max_loss": 0.02,
        }
    )


if __name__ == "__main__":
    main()
