"""The pictures of results: from small measurements, and those of the documents."""

from pathlib import Path

import pytest
from matplotlib import pyplot

from tests import plots

PAIR = {
    "small alone": {"accuracy": [0.2, 0.1, 0.3], "target_share": 0.0, "target_tokens": 0.0},
    "takeovers of 4": {"accuracy": [0.5, 0.4, 0.7], "target_share": 0.25, "target_tokens": 50.0},
    "target alone": {"accuracy": [0.8, 0.7, 0.9], "target_share": 1.0, "target_tokens": 210.0},
}


def test_every_setting_is_a_point_with_its_interval_between_the_two_ends() -> None:
    figure = plots.pair(PAIR)
    places = {"tokens from the target, %": [0, 25, 100], "target's tokens in a reply": [0, 50, 210]}
    for axes in figure.axes:
        costs = places.pop(axes.get_xlabel())
        points = {bars.get_label(): bars for bars in axes.containers}
        assert list(points) == list(PAIR)
        for (name, row), cost in zip(PAIR.items(), costs, strict=True):
            middle, _, (interval,) = points[name]
            value, low, high = (100 * share for share in row["accuracy"])
            assert middle.get_xydata().tolist() == [[cost, pytest.approx(value)]]
            assert interval.get_segments()[0].tolist() == [[cost, pytest.approx(low)], [cost, pytest.approx(high)]]
        assert axes.lines[0].get_xdata().tolist() == [costs[0], costs[-1]]
    assert not places
    pyplot.close(figure)


def test_a_way_is_the_mean_of_its_difficulties() -> None:
    def cell(think: float) -> dict[str, dict[str, float]]:
        return {
            "no_think": {"accuracy": 0.0, "mean_tokens": 4.0},
            "think": {"accuracy": think, "mean_tokens": 20.0},
            "free": {"accuracy": think, "mean_tokens": 10.0},
        }

    evaluation = {"recipe": {"questions": 50}, "by_difficulty": [cell(1.0), cell(0.5)]}
    figure = plots.modes({"one": evaluation, "two": evaluation})
    for axes in figure.axes:
        found = {bars.get_label(): bars[0].get_xydata().tolist() for bars in axes.containers}
        assert found == {"never": [[4, 0]], "always": [[20, 75]], "auto": [[10, 75]]}
        assert axes.lines[0].get_xydata().tolist() == [[4, 0], [20, 75]]
    pyplot.close(figure)


def test_the_pictures_of_the_documents_are_those_of_the_figures(tmp_path: Path) -> None:
    plots.draw(tmp_path)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text(encoding="utf-8") for path in plots.DOCS.glob("*.svg")}, "make figures"
