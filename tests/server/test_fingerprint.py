"""A calibration is for one model, template, format, sampling, budgets and decider: each is known by its own digest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server import fingerprint
from server.config.load import parse_config

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
