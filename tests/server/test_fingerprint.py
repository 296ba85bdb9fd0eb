"""A calibration is for one model, template, format, sampling, budgets and decider: each is known by its own digest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server import fingerprint
from server.cli import main
from server.config.load import ConfigError, parse_config

CONFIG = """
[engines.demo]
kind = "scripted"
model = "model"

[routes.main]
engine = "demo"
family = "qwen3"
auto = { decider = "ask" }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with weights larger than what is read of them at once."""
    folder = tmp_path / "model"
    shutil.copytree("demo/tokenizer", folder)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 2**14)
    return folder


def parts(tmp_path: Path, config: str = CONFIG) -> dict[str, str]:
    fingerprint.files_digest.cache_clear()
    return fingerprint.fingerprint(parse_config(config, tmp_path), "main")


def weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[::-1])


def longer(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [weights, longer, lambda folder: (folder / "config.json").write_text("{}")])
def test_another_model_is_another_fingerprint(tmp_path: Path, model: Path, change: Callable[[Path], object]) -> None:
    before = parts(tmp_path)
    change(model)
    after = parts(tmp_path)
    assert {part for part in after if after[part] != before[part]} == {"model"}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('family = "qwen3"', 'family = "qwen3"\nsampling = { temperature = 0.6 }', "sampling"),
        ('family = "qwen3"', 'family = "smollm3"', "format"),
        ('family = "qwen3"', 'family = "qwen3"\nbudgets = { cap = 64 }', "budgets"),
        ('decider = "ask"', 'decider = "ask", both_orders = true', "decider"),
    ],
)
def test_each_setting_changes_its_own_part(tmp_path: Path, model: Path, old: str, new: str, part: str) -> None:
    before, after = parts(tmp_path), parts(tmp_path, CONFIG.replace(old, new))
    assert {name for name in after if after[name] != before[name]} == {part}


def test_a_template_of_its_own_or_of_the_configuration_counts(tmp_path: Path, model: Path) -> None:
    before = parts(tmp_path)
    template = (model / "chat_template.jinja").read_text()
    (tmp_path / "other.jinja").write_text(template + "{# other #}")
    given = parts(tmp_path, CONFIG.replace('model = "model"', 'model = "model"\nchat_template = "other.jinja"'))
    (model / "chat_template.jinja").write_text(template + "{# other #}")
    own = parts(tmp_path)
    for after in (given, own):
        assert {name for name in after if after[name] != before[name]} == {"template"}


@pytest.mark.parametrize("neutral", ["patience = 9.0"])
def test_what_makes_no_score_changes_nothing(tmp_path: Path, model: Path, neutral: str) -> None:
    assert parts(tmp_path) == parts(tmp_path, CONFIG.replace('"ask"', f'"ask", {neutral}'))


def test_a_model_that_is_not_here_is_known_by_its_name(tmp_path: Path) -> None:
    assert fingerprint.folder_of("nobody/nothing") is None
    digests = {fingerprint.files_digest(name, ("config.json",)) for name in ("nobody/nothing", "nobody/else")}
    assert len(digests) == 2


def calibrated(tmp_path: Path) -> str:
    """The configuration with a calibration that was made for it."""
    told = {"fingerprint": parts(tmp_path), "points": [[0.0, 0.0], [1.0, 1.0]], "threshold": 0.5}
    (tmp_path / "calibration.json").write_text(json.dumps({"deciders": {"ask": told}}))
    return CONFIG.replace('"ask"', '"ask", calibration = "calibration.json"')


def checked(tmp_path: Path, config: str) -> None:
    fingerprint.files_digest.cache_clear()
    fingerprint.check_calibrations(parse_config(config, tmp_path))


def test_a_calibration_of_what_is_served_is_taken(tmp_path: Path, model: Path) -> None:
    checked(tmp_path, calibrated(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("", "", "model"),
        ('family = "qwen3"', 'family = "smollm3"', "model and format"),
        ('family = "qwen3"', 'family = "qwen3"\nsampling = { top_p = 0.9 }', "model and sampling"),
    ],
)
def test_one_of_something_else_is_refused_in_a_line(
    tmp_path: Path, model: Path, old: str, new: str, changed: str
) -> None:
    config = calibrated(tmp_path).replace(old, new)
    weights(model)
    with pytest.raises(ConfigError, match=f"^routes.main.auto.calibration: {changed} changed since .*calibrate again"):
        checked(tmp_path, config)
    checked(tmp_path, config.replace('"calibration.json"', '"calibration.json", allow_stale = true'))


def test_the_server_does_not_start_with_it(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "reasond.toml"
    config.write_text("server = { port = 0 }\n" + calibrated(tmp_path))
    weights(model)
    fingerprint.files_digest.cache_clear()
    for command in ("serve", "check"):
        assert main([command, str(config)]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1
        assert "model changed since" in told[0]


def test_what_is_no_calibration_is_refused_in_a_line(tmp_path: Path, model: Path) -> None:
    config = calibrated(tmp_path)
    for text in ("{}", "no JSON", '{"deciders": {"ask": {}}}', '{"deciders": {"draft": {}}}'):
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(ConfigError, match=r"^routes.main.auto.calibration: .*calibration.json.* calibration"):
            checked(tmp_path, config)


def test_the_links_of_a_chain_are_looked_at_too(tmp_path: Path, model: Path) -> None:
    own = calibrated(tmp_path)
    link = own.partition("auto = ")[2].strip()
    chain = own.replace(link, f'{{ decider = "chain", links = [{link}, {{ decider = "always" }}] }}')
    checked(tmp_path, chain)
    weights(model)
    with pytest.raises(ConfigError, match=r"^routes.main.auto.calibration: model changed"):
        checked(tmp_path, chain)
