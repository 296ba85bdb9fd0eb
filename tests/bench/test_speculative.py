"""The bench over scripts: delays of 1 : 10 in virtual time, so what its ratios show is the scheduler alone."""

import pytest

from tests import virtual_time
from tests.bench.speculative import measure, parser


def test_no_reply_waits_for_another_and_the_goals_of_throughput_are_met(capsys: pytest.CaptureFixture[str]) -> None:
    many_and_one = ["--questions", "64", "--alone", "64", "--rounds", "2"]
    options = ["--scripted", "1", "10", "--route", "speculative-paper", *many_and_one]
    found = virtual_time.run(measure(parser().parse_args(options)))
    print(capsys.readouterr().out)
    many, one, _, _ = found["sides"].values()
    assert many["seconds"][-64:] == pytest.approx(many["seconds"][:64])
    assert sorted(many["seconds"]) == pytest.approx(sorted(one["seconds"]))
    over = {name.partition(",")[0]: ratio["value"] for name, ratio in found["ratios"].items()}
    assert found["ratios"]["served, one at a time"]["value"] > 10
    assert over["the authors' loop"] > 10
    assert over["target alone"] > 1
