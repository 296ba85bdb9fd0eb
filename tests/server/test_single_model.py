"""One model from the command line, without a file."""

import tomllib

import pytest

from server.cli import main
from server.config.load import ConfigError
from server.config.single_model import config_of, toml_of

FLAGS = ["--max-model-len", "4096", "--enforce-eager", "--no-enable-prefix-caching", "--dtype=bfloat16"]


def test_a_model_and_vllms_own_flags_make_a_configuration(capsys):
    assert main(["serve", "some/Model-7B", "--print-config", *FLAGS, "--limit-mm-per-prompt", '{"image": 2}']) == 0
    table = tomllib.loads(capsys.readouterr().out)
    assert table["engines"]["main"]["model"] == "some/Model-7B"
    assert table["engines"]["main"]["args"] == {
        "max_model_len": 4096,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "dtype": "bfloat16",
        "limit_mm_per_prompt": {"image": 2},
    }
    assert table["routes"] == {"Model-7B": {"engine": "main", "family": "auto"}}
    route = config_of("some/Model-7B", "mine").routes["mine"]
    assert (route.engine, route.family) == ("main", "auto")


def test_what_is_no_flag_of_an_engine_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^nonsense: not a flag"):
        toml_of("some/model", "", ["nonsense"])
    file = tmp_path / "x.toml"
    file.write_text("")
    with pytest.raises(ConfigError, match="a file says all of this itself: --dtype auto"):
        config_of(str(file), "", ["--dtype", "auto"])
    with pytest.raises(SystemExit):
        main(["families", "--nonsense"])


def test_a_model_that_is_there_is_checked_without_loading_it(capsys):
    assert main(["check", "demo/hybrid", "--max-model-len", "512"]) == 0
    told = capsys.readouterr().out
    assert "routes.hybrid: family lhrm (its tags are tokens" in told
    assert "modes think, no_think, auto; efforts as budgets; budgets of thinking; tool calls json" in told


def test_the_families_are_listed(capsys):
    assert main(["families"]) == 0
    told = capsys.readouterr().out
    assert "qwen3.5         think, no_think       low, medium, high           qwen_xml" in told
