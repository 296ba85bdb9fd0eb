"""The configured engines: what each is to be, and how they are started and closed."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

from models.engines import LocalEngineConfig, load
from models.engines.base import Engine, EngineError
from models.engines.supervised import LocalEngine, SupervisedEngine
from server.config.load import Config, ConfigError

log = logging.getLogger(__name__)


async def start_engines(config: Config, stack: AsyncExitStack) -> dict[str, Engine]:
    """Starts the configured engines one after another: two that start at once fight over free memory.

    Raises `ConfigError` for one that does not start. `stack` closes those that are up, in reverse order, then too.
    """
    engines: dict[str, Engine] = {}
    for name in config.engines:
        engines[name] = await _start(config, name)
        stack.push_async_callback(engines[name].close)
    return engines


async def _start(config: Config, name: str) -> Engine:
    """One engine. What keeps it from starting is said in one line; vLLM's processes have told the rest themselves."""
    settings = config.engines[name]
    start = partial(load, name, settings, _thinking_tags(config, name))
    try:
        engine = await start()
    except (ValueError, OSError, RuntimeError, EngineError) as error:
        log.debug("engine %s did not start", name, exc_info=error)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"engines.{name}: {reason}") from error
    if not isinstance(settings, LocalEngineConfig):
        return engine
    supervision = settings.supervision
    if name not in config.needed_engines:  # its routes would rather go on without it than wait
        supervision = supervision.model_copy(update={"wait_seconds": 0.0})
    return SupervisedEngine(cast(LocalEngine, engine), cast(Callable[[], Awaitable[LocalEngine]], start), supervision)


def _thinking_tags(config: Config, engine: str) -> tuple[str, str] | None:
    """The pair of tags that native budgets watch: an engine has one, so routes that disagree leave it without."""
    pairs = {route.of_family.thinking for route in config.routes.values() if route.engine == engine} - {None}
    return pairs.pop() if len(pairs) == 1 else None
