"""A run that is killed at a random moment goes on from its last checkpoint to the same metrics."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from tests.training.conftest import sampled
from training.data.budget_replies import budget_format_of
from training.data.questions import draw

STEPS = 12
SCRATCH = "{ hidden = 32, layers = 1, heads = 2, feed_forward = 64, context = 256 }"
TOLERANCE = 1e-6
"""Relative. The same machine and thread count give the same numbers to the last digit that is logged."""
RECIPES = {
    "hft": ("hybrid_hft.toml", ["questions=4", "micro_batch=4", "easy=[]", "easy_share=0.0"]),
    "hgpo": ("hybrid_hgpo.toml", ["questions=2", "replies=4", "micro_batch=8", "max_new_tokens=8"]),
    "selfbudgeter": ("selfbudgeter_grpo.toml", ["questions=2", "replies=4", "micro_batch=8", "max_new_tokens=8"]),
}


def command(kind: str, folder: Path, data: Path, *more: str) -> list[str]:
    recipe, settings = RECIPES[kind]
    settings = [
        *settings,
        *(f"steps={STEPS}", "model.path=demo/tokenizer", f"model.scratch={SCRATCH}", f"run.out={folder}"),
        *("run.log_every=1", "run.checkpoint_every=2", "data.difficulties=[1, 2]"),
        *([f"samples={data}"] if kind == "selfbudgeter" else []),
    ]
    overrides = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "training.cli", f"configs/train/{recipe}", "--no-evaluate", *overrides, *more]


def lines(folder: Path) -> list[dict[str, float]]:
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in logged]


@pytest.mark.accept
@pytest.mark.parametrize("kind", RECIPES)
def test_a_killed_run_ends_as_if_nothing_had_happened(kind, tmp_path):
    form, rng = budget_format_of("selfbudgeter", HubTokenizer("demo/tokenizer")), Random(0)
    drawn = [draw(TASKS["checked"], 2, "train", rng) for _ in range(20)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(sampled(q, form.solution(q.thought, q.answer), True).line() for q in drawn))

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(kind, whole, data), check=True, capture_output=True)

    running = subprocess.Popen(command(kind, killed, data), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    moment = Random(time.time_ns()).randint(3, STEPS - 2)
    while running.poll() is None and not (killed / "metrics.jsonl").exists():
        time.sleep(0.01)
    while running.poll() is None and len(lines(killed)) < moment:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the run was over before it could be killed"

    subprocess.run(command(kind, killed, data, "--resume"), check=True, capture_output=True)
    assert len(lines(whole)) >= STEPS
    for expected, found in zip(lines(whole), lines(killed), strict=True):
        assert found == pytest.approx(expected, rel=TOLERANCE), f"killed after step {moment}"
