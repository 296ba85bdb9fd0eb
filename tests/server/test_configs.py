"""Every file in `configs/` loads, hangs together, and is printed by `reasond check`."""

import json
from pathlib import Path

import pytest

from server.cli import main
from server.config.load import load_config

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


def test_there_are_configurations():
    assert [file.stem for file in FILES] == [
        "budget",
        "demo",
        "english",
        "judge",
        "qwen3",
        "remote",
        "rewards",
        "speculative-decoding",
        "speculative",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_loads_and_describes_its_routes(file):
    config = load_config(file)
    assert all(route.description for route in config.routes.values())
    assert config.server.host == "127.0.0.1"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_check_prints_a_configuration(file, capsys):
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out  # libraries may have spoken before
    printed, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert printed["routes"].keys() == load_config(file).routes.keys()


def test_the_demo_has_one_engine_whose_model_chooses_and_one_route_with_a_threshold():
    config = load_config(next(file for file in FILES if file.stem == "demo"))
    assert list(config.engines) == ["demo"]
    assert config.routes["demo"].default_mode == "auto"
    assert config.routes["demo-threshold"].think_threshold == 0.5
