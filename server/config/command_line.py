"""The configuration that a command line means: a file, the folder of a training run, or a model with vLLM's flags."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.engines import vllm_arguments
from server.config.load import RUN_FILE, ConfigError, read_table
from server.config.routes import AUTO

NOTHING: Mapping[str, Any] = {}
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def table_of(
    target: str,
    names: Sequence[str] = (),
    flags: Sequence[str] = (),
    beside: str = "",
    settings: Mapping[str, Any] = NOTHING,
) -> tuple[dict[str, Any], Path]:
    """The table of the file `target`, or one for the model `target` (a folder or a hub id), with the folder that its
    paths are relative to. `names` are the model's in requests, `flags` are vLLM's, `beside` is a file with all else of
    its configuration. `settings` go before what a file says."""
    if target.endswith(".toml") or Path(target).is_file():
        if told := [*names, *flags, *filter(None, [beside])]:
            raise ConfigError(f"{target}: a file says all of this itself: {' '.join(told)}")
        return merged(read_table(target), settings), Path(target).parent
    table = _named(_model_table(target), names)
    if flags:
        _only(table, "engines", flags[0]).setdefault("args", {}).update(_arguments(flags))
    below = read_table(beside) if beside else {}
    return merged(merged(below, table), settings), Path(beside).parent


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables; where both have a value, the one `above`."""
    both = {
        key: merged(below[key], above[key]) for key in below.keys() & above.keys() if _tables(below[key], above[key])
    }
    return {**below, **above, **both}


def to_toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """The text of a table: its values, then a section for each table in it."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in values.items())
    head = f"[{'.'.join(map(_key, path))}]\n" if path and values else ""
    inner = (to_toml(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping))
    return "\n".join(filter(None, [head + lines, *inner]))


def _model_table(target: str) -> dict[str, Any]:
    """What a training run left in its folder; else one engine and one route with the model's name, under which it is
    also known by its whole id on the hub."""
    folder = Path(target)
    if not (folder / RUN_FILE).is_file():
        here = folder.is_dir()
        route = {"engine": "main", "family": AUTO} | ({} if here or "/" not in target else {"names": [target]})
        model = str(folder.resolve()) if here else target
        return {"engines": {"main": {"kind": "vllm", "model": model}}, "routes": {Path(model).name: route}}
    table = read_table(folder / RUN_FILE)
    for engine in table.get("engines", {}).values():
        if (folder / engine.get("model", "")).exists():
            engine["model"] = str((folder / engine["model"]).resolve())
    return table


def _named(table: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The table with its one route under the first of the names, and the others as further ones."""
    if not names:
        return table
    route = {**_only(table, "routes", "--served-model-name"), "names": list(names[1:])}
    return {**table, "routes": {names[0]: route}}


def _only(table: Mapping[str, Any], kind: str, flag: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [*table.get(kind, {}).values()]
    if len(found) != 1:
        raise ConfigError(f"{flag}: {len(found)} {kind} are there, and it speaks of one")
    return found[0]


def _arguments(flags: Sequence[str]) -> dict[str, Any]:
    try:
        return vllm_arguments(flags)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _tables(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)


def _key(text: str) -> str:
    return text if BARE_KEY.fullmatch(text) else _toml(text)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and truths are TOML's
