"""What HGPO costs over TRL's plain GRPO: `python -m tests.bench.hgpo [--rounds N]`.

Both train the same random model on the same questions with the same settings; a random model ends hardly any reply, so
that both write equally long ones. Each round is a process of its own, in turn. Printed are generated tokens a second of
training and the peak of resident memory of each, and their ratios with the least and greatest round.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOTrainer

from models.text.tokenizer import HubTokenizer
from tests.processes import ROOT
from training.algorithms import hgpo
from training.algorithms.hgpo import HgpoRecipe
from training.algorithms.parts import Material
from training.cli import read
from training.config.source import open_source
from training.runs import policy_arguments, questions_of
from training.trl_adapter import PolicyTrainer, prompts
from training.weights import store

WAYS = ("hgpo", "grpo")
STEPS = 6
LENGTH = "completions/mean_length"
SCRATCH = "{ hidden = 128, layers = 4, heads = 4, feed_forward = 384, context = 4096 }"
SETTINGS = [f"steps={STEPS}", "model.path=demo/tokenizer", f"model.scratch={SCRATCH}", "fused_head=false"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--way", choices=WAYS, help="one round of this alone")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS[:: -1 if number % 2 else 1]:
            found[way].append(in_process(way))
    for figure in ("tokens a second", "MiB"):
        rounds = {way: [one[figure] for one in found[way]] for way in WAYS}
        ratios = [a / b for a, b in zip(*rounds.values(), strict=True)]
        told = ", ".join(f"{way} {median(figures):.0f}" for way, figures in rounds.items())
        print(f"{figure}: {told}; ratio {median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]")


def in_process(way: str) -> dict[str, float]:
    line = [sys.executable, "-m", "tests.bench.hgpo", "--way", way]
    ran = subprocess.run(line, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def measured(way: str) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        recipe = read(Path("configs/train/hybrid_hgpo.toml"), [*SETTINGS, f"run.out={folder}"])
        assert isinstance(recipe, HgpoRecipe)
        trainer = trainer_of(way, recipe)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    lengths = [line[LENGTH] for line in trainer.state.log_history if LENGTH in line]
    written = sum(lengths[1:]) * recipe.questions * recipe.replies  # the first step warms up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tokens a second": written / (clock.ends[-1] - clock.ends[0]), "MiB": peak}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def trainer_of(way: str, recipe: HgpoRecipe) -> Any:
    source, tokenizer = open_source(recipe.data), store.load_tokenizer(recipe.model)
    drawn = questions_of(recipe, source)
    shared = {"model": store.load_model(recipe.model, tokenizer, recipe.run.seed), "processing_class": tokenizer}
    shared["args"] = policy_arguments(recipe)
    if way == "hgpo":
        parts = hgpo.parts(recipe, Material(HubTokenizer("demo/tokenizer"), source, drawn))
        return PolicyTrainer(
            **shared, settings=recipe.optimizer, fused_head=recipe.fused_head, parts=parts, train_dataset=prompts(parts)
        )
    texts = {one.text: one for one in drawn}

    def right(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        asked = [texts[prompt[-1]["content"]] for prompt in prompts]
        return source.scores([(one, said[0]["content"]) for one, said in zip(asked, completions, strict=True)])

    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in texts])
    return GRPOTrainer(**shared, reward_funcs=right, train_dataset=rows)


if __name__ == "__main__":
    main()
