"""The configured engines: what each is to be, and how they are started and closed."""

import logging
from contextlib import AsyncExitStack

from models.engines import load
from models.engines.base import Engine, EngineError
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
    try:
        return await load(name, config.engines[name], _thinking_tags(config, name))
    except (ValueError, OSError, RuntimeError, EngineError) as error:
        log.debug("engine %s did not start", name, exc_info=error)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"engines.{name}: {reason}") from error


def _thinking_tags(config: Config, engine: str) -> tuple[str, str] | None:
    """The pair of tags that native budgets watch: an engine has one, so routes that disagree leave it without."""
    pairs = {route.of_family.thinking for route in config.routes.values() if route.engine == engine} - {None}
    return pairs.pop() if len(pairs) == 1 else None
