"""The configured engines: what each is to be, and how they are started and closed."""

import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from models.engines.base import Engine, EngineError
from models.engines.registry import EngineSpec, load
from server.config.engines import RemoteEngineConfig, ScriptedEngineConfig
from server.config.load import Config, ConfigError

log = logging.getLogger(__name__)


async def start_engines(config: Config, stack: AsyncExitStack) -> dict[str, Engine]:
    """Starts the configured engines one after another: two that start at once fight over free memory.

    Raises `ConfigError` for one that does not start. `stack` closes those that are up, in reverse order, then too.
    """
    engines: dict[str, Engine] = {}
    for name in config.engines:
        engines[name] = await _start(engine_spec(config, name, os.environ))
        stack.push_async_callback(engines[name].close)
    return engines


async def _start(spec: EngineSpec) -> Engine:
    """One engine. What keeps it from starting is said in one line; vLLM's processes have told the rest themselves."""
    try:
        return await load(spec)
    except (ValueError, OSError, RuntimeError, EngineError) as error:
        log.debug("engine %s did not start", spec.name, exc_info=error)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"engines.{spec.name}: {reason}") from error


def engine_spec(config: Config, name: str, environment: Mapping[str, str]) -> EngineSpec:
    """The registry's form of one engine's settings. Raises `ConfigError` where the environment lacks its key."""
    engine = config.engines[name]
    if isinstance(engine, RemoteEngineConfig):
        args = _remote_args(name, engine, environment)
    elif isinstance(engine, ScriptedEngineConfig):
        args = engine.model_dump(exclude={"kind", "model", "chat_template", "adapters"})
    else:
        args = engine.args
    return EngineSpec(
        name=name,
        kind=engine.kind,
        model=engine.model,
        args=args,
        adapters=engine.adapters,
        thinking=_thinking_tags(config, name),
        chat_template=Path(engine.chat_template).read_text(encoding="utf-8") if engine.chat_template else None,
        env=engine.env if engine.kind == "vllm" else {},
    )


def _remote_args(name: str, engine: RemoteEngineConfig, environment: Mapping[str, str]) -> dict[str, Any]:
    args = engine.model_dump(include={"url", "served_model", "timeout", "connect_timeout"}, exclude_none=True)
    if engine.key_env:
        if not environment.get(engine.key_env):
            raise ConfigError(f"engines.{name}.key_env: the environment has no {engine.key_env}")
        args["api_key"] = environment[engine.key_env]
    return args


def _thinking_tags(config: Config, engine: str) -> tuple[str, str] | None:
    """The pair of tags that native budgets watch: an engine has one, so routes that disagree leave it without."""
    pairs = {route.of_family.thinking for route in config.routes.values() if route.engine == engine} - {None}
    return pairs.pop() if len(pairs) == 1 else None
