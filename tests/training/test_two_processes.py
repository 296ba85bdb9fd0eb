"""Two processes reach the metrics of one, and the run outlives a killed one: over gloo, on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import members

STEPS = 6
SETTINGS = ["run.log_every=1", "run.checkpoint_every=2", f"steps={STEPS}", "data.difficulties=[1, 2]"]
SCRATCH = "{ hidden = 32, layers = 1, heads = 2, feed_forward = 64, context = 256 }"
HFT = ["questions=8", "easy=[]", "easy_share=0.0", "model.path=demo/tokenizer", f"model.scratch={SCRATCH}"]
HGPO = ["questions=8", "replies=8", "max_new_tokens=32", "model.path=demo/hybrid", "optimizer.lr=1e-5"]
TOLERANCE = 1e-3
"""Relative, of the losses of rows: the same rows, added up in another order."""
AWAY = 0.15
"""Of the mean reward of sampled replies, which no two draws share."""


def command(recipe: str, out: Path, processes: int, settings: list[str], *more: str) -> list[str]:
    launch = ["torch.distributed.run", "--nproc_per_node", str(processes), "-m"] if processes > 1 else []
    overrides = [part for setting in [*SETTINGS, *settings, f"run.out={out}"] for part in ("--set", setting)]
    line = [sys.executable, "-m", *launch, "training.cli", f"configs/train/{recipe}.toml", "--no-evaluate"]
    return [*line, *overrides, *more]


def logged(out: Path, name: str) -> list[float]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


@pytest.mark.accept
@pytest.mark.parametrize(("recipe", "settings", "rows"), [("hybrid_hft", HFT, 16), ("hybrid_hgpo", HGPO, 64)])
def test_two_processes_reach_the_metrics_of_one(recipe, settings, rows, tmp_path):
    for processes in (1, 2):
        own = [*settings, f"micro_batch={rows // processes}"]
        subprocess.run(command(recipe, tmp_path / str(processes), processes, own), check=True, capture_output=True)
    alone, together = (tmp_path / str(processes) for processes in (1, 2))
    if recipe == "hybrid_hft":
        assert len(logged(alone, "loss")) == STEPS
        assert logged(together, "loss") == pytest.approx(logged(alone, "loss"), rel=TOLERANCE)
    else:
        means = [sum(found) / len(found) for found in (logged(alone, "reward"), logged(together, "reward"))]
        assert abs(means[1] - means[0]) <= AWAY
    assert sorted(path.name for path in alone.iterdir()) == sorted(path.name for path in together.iterdir())


@pytest.mark.accept
def test_a_killed_process_ends_the_run_which_then_goes_on(tmp_path):
    settings = [*HFT, "micro_batch=8", "steps=40", "run.checkpoint_every=10"]
    line = command("hybrid_hft", tmp_path / "run", 2, settings)
    running = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    saved = tmp_path / "run" / "checkpoints" / "checkpoint-10" / "trainer_state.json"
    while running.poll() is None and not saved.exists():
        time.sleep(0.02)
    (second,) = (pid for pid in members(running.pid) if "RANK=1" in environment(pid))
    os.kill(second, signal.SIGKILL)
    assert running.wait(60) != 0
    assert not members(running.pid), "a process was left"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    subprocess.run([*line, "--resume"], check=True, capture_output=True)
    subprocess.run(command("hybrid_hft", tmp_path / "whole", 2, settings), check=True, capture_output=True)
    assert logged(tmp_path / "run", "loss") == pytest.approx(logged(tmp_path / "whole", "loss"), rel=TOLERANCE)


def environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")
