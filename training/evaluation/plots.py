"""Plots of a run and of an evaluation, as PNG files beside what they show."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PANELS: Mapping[str, Mapping[str, str]] = {
    "loss": {"loss": "loss"},
    "reward": {"reward": "all", "hgpo/reward_0": "think", "hgpo/reward_1": "no_think"},
    "tokens of a reply": {
        "completions/mean_length": "all tokens",
        "budget/declared": "declared",
        "budget/tokens": "used",
    },
    "share of replies": {
        "hgpo/probability_0": "P(think)",
        "budget/accuracy": "right",
        "budget/within_10": "within 10 % of the budget",
        "budget/within_50": "within 50 %",
    },
}
"""Title of a panel to the metrics in it and their labels. A panel without any is left out."""
LOSS_ONLY = {"reward"}
"""A run that has these needs no loss: that of a policy gradient says nothing."""


def curves(out: Path) -> Path | None:
    """`metrics.png` from `metrics.jsonl`: reward, length and shares over the steps. None where nothing was logged."""
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {name for line in lines for name in line}
    titles = [title for title, metrics in PANELS.items() if known & set(metrics)]
    if known & LOSS_ONLY:
        titles.remove("loss")
    if not titles:
        return None
    figure, axes = pyplot.subplots(len(titles), 1, figsize=(7, 2.4 * len(titles)), sharex=True, squeeze=False)
    for axis, title in zip(axes[:, 0], titles, strict=True):
        for name, label in PANELS[title].items():
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1)
        axis.set_ylabel(title)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("step")
    return _saved(figure, out / "metrics.png")


def frontier(cells: Sequence[Mapping[str, Any]], ways: Sequence[str], out: Path) -> Path:
    """`evaluation.png`: accuracy against mean tokens, one line a way of asking, one point a difficulty.

    `cells` have a `difficulty` and, for each way, `accuracy` and `tokens`.
    """
    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    for way in ways:
        found = [(cell[way]["tokens"], cell[way]["accuracy"], cell["difficulty"]) for cell in cells]
        axis.plot([x for x, _, _ in found], [y for _, y, _ in found], marker="o", markersize=4, linewidth=1, label=way)
        for x, y, difficulty in found:
            axis.annotate(str(difficulty), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axis.set_xlabel("mean tokens of a reply (labels: difficulty)")
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.03, 1.05)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _saved(figure, out / "evaluation.png")


def _saved(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
