"""The pictures of results in the documents, drawn from the figures that measurements left: `make figures`.

`modes.svg` is drawn from the evaluations of the demo models, the others from `docs/results`, where
`tests.accept.speculative_pair`, `tests.accept.deciders` and `tests.bench.budgets` put theirs with `--out`. The same
figures give the same files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import orjson

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.analysis.distribution import wilson
from tests.processes import ROOT
from training.evaluation.plots import choices

DOCS = ROOT / "docs"
MODELS = {"0.9 M parameters, sums of last digits": "demo/hybrid", "135 M parameters, plain English": "demo/english"}
WAYS = {"never": "no_think", "always": "think", "auto": "free"}
COSTS = {"target_share": (100, "tokens from the target, %"), "target_tokens": (1, "target's tokens in a reply")}


def modes(evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy against tokens, one panel a model: without thinking, with it, and as the model chooses.

    The line between the first two is what thinking on a random share of the questions would reach.
    """
    figure, panels = pyplot.subplots(1, len(evaluations), figsize=(9, 3.5), sharey=True, layout="constrained")
    for axes, (title, evaluation) in zip(panels, evaluations.items(), strict=True):
        cells, questions = evaluation["by_difficulty"], evaluation["recipe"]["questions"]
        points = {
            name: (fmean(c[way]["mean_tokens"] for c in cells), 100 * fmean(c[way]["accuracy"] for c in cells))
            for name, way in WAYS.items()
        }
        axes.plot(
            *zip(points["never"], points["always"], strict=True), "--", color="lightgray", label="random", zorder=0
        )
        for name, (tokens, right) in points.items():
            found = wilson(round(right / 100 * questions * len(cells)), questions * len(cells))
            assert found is not None
            _point(axes, tokens, (found.value, found.low, found.high), "o", name)
        axes.set(xlabel="tokens of a reply", title=title, ylim=(0, 105))
    panels[0].set_ylabel("accuracy, % (95 % interval)")
    panels[0].legend(fontsize=8, loc="lower right")
    return figure


def budgets(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Tokens used and accuracy over budgets, one line a way of keeping to them."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for way in dict.fromkeys(row["way"] for row in rows):
        points = [row for row in rows if row["way"] == way]
        over = [row["budget"] for row in points]
        panels[0].plot(over, [row["used"] for row in points], marker="o", label=way)
        deviations = [196 * (row["right"] * (1 - row["right"]) / row["requests"]) ** 0.5 for row in points]
        panels[1].errorbar(over, [100 * row["right"] for row in points], deviations, marker="o", capsize=2, label=way)
    for panel, title in zip(panels, ("tokens used", "accuracy, % (95 % interval)"), strict=True):
        panel.set(xlabel="budget, tokens", title=title, xscale="log")
        panel.legend(fontsize=8)
    return figure


def pair(rows: Mapping[str, Any]) -> Figure:
    """Accuracy against what the target costs. `rows` by setting: `accuracy` with its interval's ends, and the costs.

    The small model alone and the target alone are the ends, and the line between them is what giving a share of the
    questions to the target would reach.
    """
    figure, panels = pyplot.subplots(1, len(COSTS), figsize=(9, 4), sharey=True, layout="constrained")
    for axes, (cost, (scale, label)) in zip(panels, COSTS.items(), strict=True):
        ends = [found for found in rows.values() if found["target_share"] in (0, 1)]
        line = [[scale * found[cost] for found in ends], [100 * found["accuracy"][0] for found in ends]]
        axes.plot(*line, "--", color="lightgray", zorder=0)
        for name, found in rows.items():
            _point(axes, scale * found[cost], found["accuracy"], "s" if found in ends else "o", name)
        axes.set(xlabel=label, ylim=(0, 100))
    panels[0].set_ylabel("accuracy, % (95 % interval)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def deciders(models: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy against all tokens, one panel a model: every way to decide, and the front of those that none beats."""
    figure, panels = pyplot.subplots(1, len(models), figsize=(6 * len(models), 5), squeeze=False, layout="constrained")
    for axes, (name, result) in zip(panels[0], models.items(), strict=True):
        choices(axes, result)
        axes.set_title(f"demo/{name}")
    return figure


def _point(axes: Axes, cost: float, share: Sequence[float], shape: str, name: str) -> None:
    value, low, high = (100 * end for end in share)
    axes.errorbar(cost, value, [[value - low], [high - value]], fmt=shape, capsize=3, label=name)


def draw(folder: Path) -> None:
    """All pictures. Text stays text, and ids and the date do not change: files that a diff can read."""
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reasond"}):
        figures = {
            "modes": modes({title: _read(ROOT / model / "evaluation.json") for title, model in MODELS.items()}),
            "budget-sweep": budgets(_read(DOCS / "results/budget-sweep.json")),
            "deciders": deciders(_read(DOCS / "results/deciders.json")),
            "speculative-pair": pair(_read(DOCS / "results/speculative-pair.json")),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            pyplot.close(figure)


def _read(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


if __name__ == "__main__":
    draw(DOCS)
