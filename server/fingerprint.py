"""What a calibration stands on: a route's model, template, format, sampling, budgets and decider, each as a digest.

All of it comes from files and settings, so that a calibration of something else is found before anything is loaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from controllers.deciders.base import THRESHOLD, DeciderConfig
from server.config.load import Config, ConfigError

BLOCK, BLOCKS = 2**16, 32
"""Of a file of weights so many blocks are read, evenly spread: training changes all of it."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
SETTINGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model")
NO_SCORE = {"calibration", "allow_stale", "patience", "raw_threshold", "shadow_rate", "shadow_compare"}
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def fingerprint(config: Config, name: str, decider: DeciderConfig | None = None) -> dict[str, str]:
    """That of a route, whose family is known, with its own decider or another."""
    route = config.routes[name]
    engine = config.engines[route.engine]
    models = [engine.model]
    if route.adapter:
        models.append(engine.adapters[route.adapter])
    if route.speculative is not None:
        models.append(config.engines[route.speculative.target].model)
    return {
        "model": _digest([files_digest(path, (*WEIGHTS, *SETTINGS)) for path in models]),
        "template": _digest(engine.template or files_digest(engine.model, TEMPLATES)),
        "format": _digest(route.of_family),
        "sampling": _digest(route.sampling.model_dump(mode="json")),
        "budgets": _digest(route.model_dump(mode="json", include={"budgets", "loop", "speculative"})),
        "decider": _digest(_scoring(decider or route.auto)),
    }


def _scoring(decider: DeciderConfig | None) -> Any:
    """What of a decider's settings makes its scores."""
    return decider and decider.model_dump(mode="json", exclude=NO_SCORE)


def decider_card(config: Config, name: str) -> dict[str, Any]:
    """What clients are told of a route's decider: what a calibration of it stands on, whether it has one, and the
    threshold where a request names none."""
    route = config.routes[name]
    assert route.auto is not None
    calibration = route.auto.calibrated()
    named = (route.think_threshold, calibration.threshold)
    return {
        "fingerprint": fingerprint(config, name),
        "calibrated": bool(calibration.points),
        "threshold": next((threshold for threshold in named if threshold is not None), THRESHOLD),
    }


def check_calibrations(config: Config) -> None:
    """Raises `ConfigError`, a line for each route whose calibration was made for something else. A model that has yet
    to be downloaded is not looked at."""
    problems = [problem for name in config.routes for problem in _problems(config, name)]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(config: Config, name: str) -> Iterator[str]:
    auto = config.routes[name].auto
    if folder_of(config.engines[config.routes[name].engine].model) is None:
        return
    for decider in (auto, *getattr(auto, "links", ())):
        if decider is None or not decider.calibration or decider.allow_stale:
            continue
        try:
            made_for = decider.calibrated().fingerprint
        except ValueError as error:
            yield f"routes.{name}.auto.calibration: {error}"
            continue
        now = fingerprint(config, name, decider)
        if changed := [part for part in now if made_for.get(part) != now[part]]:
            yield (
                f"routes.{name}.auto.calibration: {' and '.join(changed)} changed since {decider.calibration} was "
                "made; calibrate again, or set allow_stale = true"
            )


def folder_of(model: str) -> Path | None:
    """Where the files of a model are, be it a folder or a hub id; None where they are not on this machine."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


@lru_cache(maxsize=64)
def files_digest(model: str, endings: tuple[str, ...]) -> str:
    """Of a model's files with these endings; of its name where they are not on this machine."""
    folder = folder_of(model)
    if folder is None:
        return _digest(model)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(endings))
    return _digest([[path.name, _sampled(path)] for path in files])


def _sampled(path: Path) -> str:
    """Its size, and blocks of it."""
    size = path.stat().st_size
    found = sha256(str(size).encode())
    with path.open("rb") as file:
        for at in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * at // (BLOCKS - 1))
            found.update(file.read(BLOCK))
    return found.hexdigest()


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _plain(value: Any) -> dict[str, Any]:
    """A mapping or a dataclass, as JSON has it."""
    if isinstance(value, Mapping):
        return dict(value)
    return {each.name: getattr(value, each.name) for each in fields(value)}
