"""The plot of an evaluation, a PNG file beside its table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from training.run_artifacts import save_plot


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
    return save_plot(figure, out / "evaluation.png")
