"""The plot of accuracy against the target's tokens, from a small measurement."""

from pathlib import Path

import orjson
import pytest
from matplotlib import pyplot

from tests.accept import pair_plot

ROWS = {
    "small alone": {"accuracy": [0.2, 0.1, 0.3], "target_share": 0.0, "target_tokens": 0.0},
    "takeovers of 4": {"accuracy": [0.5, 0.4, 0.7], "target_share": 0.25, "target_tokens": 50.0},
    "target alone": {"accuracy": [0.8, 0.7, 0.9], "target_share": 1.0, "target_tokens": 210.0},
}


def test_every_setting_is_a_point_with_its_interval_between_the_two_ends() -> None:
    figure = pair_plot.figure_of(ROWS)
    places = {"tokens from the target, %": [0, 25, 100], "target's tokens in a reply": [0, 50, 210]}
    for axes in figure.axes:
        costs = places.pop(axes.get_xlabel())
        points = {bars.get_label(): bars for bars in axes.containers}
        assert list(points) == list(ROWS)
        for (name, row), cost in zip(ROWS.items(), costs, strict=True):
            middle, _, (interval,) = points[name]
            value, low, high = (100 * share for share in row["accuracy"])
            assert middle.get_xydata().tolist() == [[cost, pytest.approx(value)]]
            assert interval.get_segments()[0].tolist() == [[cost, pytest.approx(low)], [cost, pytest.approx(high)]]
        assert axes.lines[0].get_xdata().tolist() == [costs[0], costs[-1]]
    assert not places
    pyplot.close(figure)


def test_the_command_draws_the_same_file_from_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = tmp_path / "measured.json"
    measured.write_bytes(orjson.dumps(ROWS))
    drawn = []
    for name in ("one.svg", "two.svg"):
        monkeypatch.setattr("sys.argv", ["pair_plot", str(measured), str(tmp_path / name)])
        pair_plot.main()
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    assert all(name in drawn[0] for name in ROWS)
