"""The plots of evaluations, PNG files beside their tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

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


def deciders(result: Mapping[str, Any], path: Path) -> Path:
    """What `choices` draws, in a file of its own."""
    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    choices(axis, result)
    return save_plot(figure, path)


def choices(axis: Axes, result: Mapping[str, Any]) -> None:
    """Accuracy against all tokens: the chord from never to always, the curve of each decider, each way as a point, and
    the front of those that no other beats in both."""
    points = {name: (way["tokens"], way["accuracy"]["value"]) for name, way in result["ways"].items()}
    axis.plot(*zip(points["never"], points["always"], strict=True), "k--", linewidth=1, label="random mix")
    for name, own in result["deciders"].items():
        axis.plot(own["curve"]["tokens"], own["curve"]["accuracy"], linewidth=1, label=f"{name}, all thresholds")
    front = pareto({name: point for name, point in points.items() if name != "oracle"})
    axis.step(*zip(*front, strict=True), where="post", color="0.6", linewidth=3, alpha=0.5, label="Pareto front")
    for name, (tokens, accuracy) in points.items():
        axis.plot(tokens, accuracy, "k*" if name == "oracle" else "o", markersize=5)
        axis.annotate(name, (tokens, accuracy), textcoords="offset points", xytext=(4, -9), fontsize=7)
    axis.set_xlabel("all tokens of a reply, those of the choice included")
    axis.set_ylabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def pareto(points: Mapping[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (tokens, accuracy) that no other beats, by tokens."""
    front: list[tuple[float, float]] = []
    for tokens, accuracy in sorted(points.values(), key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((tokens, accuracy))
    return front
