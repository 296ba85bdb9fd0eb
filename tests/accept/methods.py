"""Every method that teaches a hybrid when to think, side by side: `python -m tests.accept.methods [--only NAME ...]`.

Each method begins with the same HFT model and learns from equally many replies; each model is measured on the same
test questions. Both HFT starts teach demo/hybrid its modes again, which forgets when to use which: one writes every
question in both modes, the other thinks on two of five. A run that stands in `runs/methods` is left alone, so that a
broken comparison goes on. The result is a file in `docs/results` and the table, printed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.processes import ROOT

RUNS = Path("runs/methods")
RESULT = ROOT / "docs/results/training-methods.json"
AGAIN = [
    *('model={path="demo/hybrid"}', "steps=100", "easy=[]", "easy_share=0.0"),
    *("optimizer.lr=1e-3", "optimizer.matrix_lr=5e-3", "optimizer.warmup=10"),
]
SELDOM = ["paired=false", "questions=64", 'modes=["think", "think", "no_think", "no_think", "no_think"]', "run.seed=1"]
STARTS: Mapping[str, Sequence[str]] = {"even": AGAIN, "seldom": [*AGAIN, *SELDOM]}
METHODS: Mapping[str, tuple[str, Sequence[str]]] = {
    "HFT-RFT": ("hybrid_rft", ()),
    "HFT-DPO": ("hybrid_dpo", ()),
    "HGPO, GRPO": ("hybrid_hgpo", ()),
    "HGPO, RLOO": ("hybrid_hgpo", ["advantage.estimator=rloo"]),
    "HGPO, REINFORCE++": ("hybrid_hgpo", ["advantage.estimator=reinforce++"]),
    "HGPO, δ 0.6": ("hybrid_hgpo", ["advantage.delta=0.6"]),
    "HGPO, δ 0.9": ("hybrid_hgpo", ["advantage.delta=0.9"]),
    "AdaptThink": ("hybrid_adaptthink", ()),
    "Thinkless": ("hybrid_thinkless", ()),
}
"""A name in the table to its recipe, and to what it sets otherwise."""
FROM_SAMPLES = ("hybrid_rft", "hybrid_dpo")
HEAD = "| start | method | accuracy | tokens | think ratio | HAcc | HAcc over HFT |\n|---|---|---|---|---|---|---|"


def main() -> None:
    options = parser().parse_args()
    for start in options.starts:
        hft = train("HFT", start, "hybrid_hft", STARTS[start], options)
        for name in METHODS if options.only is None else options.only:
            recipe, settings = METHODS[name]
            drawn = [f"samples={samples_of(start, hft, options.steps)}"] if recipe in FROM_SAMPLES else []
            train(name, start, recipe, [*settings, *drawn, f"model.path={hft}", f"steps={options.steps}"], options)
    rows = list(measured())
    RESULT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(rows))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    found.add_argument("--only", nargs="*", choices=METHODS, help="these methods; none is the starts alone")
    found.add_argument("--steps", type=int, default=60, help="of each method")
    found.add_argument("--questions", type=int, default=100, help="test questions of each depth")
    return found


def command(recipe: str, *settings: str) -> None:
    overrides = [part for setting in settings for part in ("--set", setting)]
    line = [sys.executable, "-m", "training.cli", f"configs/train/{recipe}.toml", "--no-evaluate", *overrides]
    subprocess.run(line, check=True, cwd=ROOT)


def folder(start: str, name: str) -> Path:
    return RUNS / start / name.replace(", ", "-").replace(" ", "")


def samples_of(start: str, hft: Path, steps: int) -> Path:
    """The start's replies in both modes, drawn where they are not yet."""
    path = RUNS / start / "samples.jsonl"
    if not (ROOT / path).exists():
        command("hybrid_sample", f"out={path}", f"model.path={hft}", f"questions={16 * steps}")
    return path


def train(name: str, start: str, recipe: str, settings: Sequence[str], options: argparse.Namespace) -> Path:
    """The run's folder; trained and measured where it is not yet."""
    out = folder(start, name)
    if not (ROOT / out / "reasond.toml").exists():
        command(recipe, *settings, f"run.out={out}")
    if not (ROOT / out / "evaluation.json").exists():
        command("hybrid_evaluate", f"model.path={out}", f"out={out}", f"questions={options.questions}")
    return out


def measured() -> Iterator[Mapping[str, Any]]:
    """A row for each run that was measured."""
    for start in STARTS:
        for name in ("HFT", *METHODS):
            path = ROOT / folder(start, name) / "evaluation.json"
            if path.exists():
                found = json.loads(path.read_text())
                free = found["overall"]["free"]
                figures = {key: found[key]["value"] for key in ("think_ratio", "hybrid_accuracy")}
                intervals = {key: found[key]["interval"] for key in figures}
                yield {
                    "start": start,
                    "method": name,
                    "questions": found["hybrid_accuracy"]["questions"],
                    "accuracy": free["accuracy"],
                    "tokens": free["mean_tokens"],
                    **figures,
                    "intervals": {"accuracy": free["interval"], **intervals},
                }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    first = {row["start"]: row["hybrid_accuracy"] for row in rows if row["method"] == "HFT"}
    return "\n".join([HEAD, *(line(row, row["hybrid_accuracy"] / first[row["start"]] - 1) for row in rows)])


def line(row: Mapping[str, Any], gain: float) -> str:
    def with_interval(name: str) -> str:
        low, high = row["intervals"][name]
        return f"{row[name]:.3f} ({low:.3f} to {high:.3f})"

    right, thinks, best = map(with_interval, ("accuracy", "think_ratio", "hybrid_accuracy"))
    return f"| {row['start']} | {row['method']} | {right} | {row['tokens']:.1f} | {thinks} | {best} | {gain:+.0%} |"


if __name__ == "__main__":
    main()
