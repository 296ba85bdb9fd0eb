"""A configuration for one model, from the command line: `reasond serve MODEL --max-model-len 8192`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.config.load import Config, ConfigError, load_config, parse_config


def config_of(target: str, name: str = "", flags: Sequence[str] = ()) -> Config:
    """The configuration in the file `target`, or one for the model `target`: a folder or a hub id."""
    if target.endswith(".toml") or Path(target).is_file():
        if name or flags:
            raise ConfigError(f"{target}: a file says all of this itself: {' '.join([name, *flags]).strip()}")
        return load_config(target)
    return parse_config(toml_of(target, name, flags), Path())


def toml_of(model: str, name: str = "", flags: Sequence[str] = ()) -> str:
    """A file to start from. `flags` are vLLM's own, for the engine."""
    arguments = "".join(f"{key} = {_toml(value)}\n" for key, value in _arguments(flags).items())
    route = name or Path(model).name
    return (
        f'[engines.main]\nkind = "vllm"\nmodel = {_toml(model)}\n'
        + (f"\n[engines.main.args]\n{arguments}" if arguments else "")
        + f'\n[routes.{_toml(route)}]\nengine = "main"\nfamily = "auto"\n'
    )


def _arguments(flags: Sequence[str]) -> dict[str, Any]:
    """vLLM's flags by their Python names: `--name value`, `--name=value`, `--name`, `--no-name`."""
    found: dict[str, Any] = {}
    key = ""
    for flag in flags:
        if flag.startswith("--"):
            key, _, value = flag.removeprefix("--").partition("=")
            key = key.replace("-", "_")
            off = key.startswith("no_") and not value
            key = key.removeprefix("no_") if off else key
            found[key] = _value(value) if value else not off
        elif key:
            found[key], key = _value(flag), ""
        else:
            raise ConfigError(f"{flag}: not a flag of the engine, which begin with --")
    return found


def _value(text: str) -> Any:
    """A number, a list or a table where it is JSON, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
