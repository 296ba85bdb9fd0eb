"""Accuracy against what the target costs: `python -m tests.accept.pair_plot runs/speculative-pair.json plot.svg`.

The JSON is that of `speculative_pair.py`. Each setting is a point; the small model alone and the target alone are the
ends, and the line between them is what giving a share of the questions to the target would reach.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import orjson

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

COSTS = {"target_share": (100, "tokens from the target, %"), "target_tokens": (1, "target's tokens in a reply")}


def main() -> None:
    measured, out = map(Path, sys.argv[1:])
    draw(orjson.loads(measured.read_bytes()), out)


def draw(rows: Mapping[str, Any], out: Path) -> None:
    # Text that stays text, and ids that do not change: a file that a diff can read.
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pair"}):
        figure = figure_of(rows)
        figure.savefig(out, metadata={"Date": None})
        pyplot.close(figure)


def figure_of(rows: Mapping[str, Any]) -> Figure:
    """`rows` by setting: `accuracy` with its interval's ends, and the costs, as `speculative_pair.py` writes them."""
    figure, panels = pyplot.subplots(1, len(COSTS), figsize=(9, 4), sharey=True, layout="constrained")
    for axes, (cost, (scale, label)) in zip(panels, COSTS.items(), strict=True):
        ends = [found for found in rows.values() if found["target_share"] in (0, 1)]
        line = [[scale * found[cost] for found in ends], [100 * found["accuracy"][0] for found in ends]]
        axes.plot(*line, "--", color="lightgray", zorder=0)
        for name, found in rows.items():
            value, low, high = (100 * share for share in found["accuracy"])
            shape = "s" if found in ends else "o"
            axes.errorbar(scale * found[cost], value, [[value - low], [high - value]], fmt=shape, capsize=3, label=name)
        axes.set(xlabel=label, ylim=(0, 100))
    panels[0].set_ylabel("accuracy, % (95 % interval)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
