"""The configured engines: what each is to be, and how they are started and closed."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

from pydantic import ValidationError

from models.engines import LocalEngineConfig, load
from models.engines.base import Engine, EngineError
from models.engines.supervised import LocalEngine, SupervisedEngine
from server.config.load import Config, ConfigError

log = logging.getLogger(__name__)


START_ERRORS = (
    *(ValueError, OSError, RuntimeError, EngineError),
    *(ImportError, LookupError, TypeError, AttributeError, AssertionError),
)
"""What an engine that does not start raises: the first four speak for themselves."""


async def start_engines(config: Config, stack: AsyncExitStack, cause: Callable[[], str] = str) -> dict[str, Engine]:
    """Starts the configured engines one after another: two that start at once fight over free memory.

    Raises `ConfigError` for one that does not start, with the `cause` that its processes gave. `stack` closes those
    that are up, in reverse order, then too.
    """
    engines: dict[str, Engine] = {}
    for name in config.engines:
        engines[name] = await _start(config, name, cause)
        stack.push_async_callback(engines[name].close)
    return engines


async def _start(config: Config, name: str, cause: Callable[[], str]) -> Engine:
    """One engine. What keeps it from starting is said in one line."""
    settings = config.engines[name]
    start = partial(load, name, settings, thinking_tags(config, name))
    try:
        engine = await start()
    except START_ERRORS as error:
        log.debug("engine %s did not start", name, exc_info=error)
        raise ConfigError(f"engines.{name}: {cause() or reason_of(error)}") from error
    if not isinstance(settings, LocalEngineConfig):
        return engine
    supervision = settings.supervision
    if name not in config.needed_engines:  # its routes would rather go on without it than wait
        supervision = supervision.model_copy(update={"wait_seconds": 0.0})
    return SupervisedEngine(cast(LocalEngine, engine), cast(Callable[[], Awaitable[LocalEngine]], start), supervision)


def reason_of(error: Exception) -> str:
    """The first line of what an exception says."""
    said = str(error.errors()[0]["msg"] if isinstance(error, ValidationError) else error)
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    return (
        line.removeprefix("Value error, ") if isinstance(error, START_ERRORS[:4]) else f"{type(error).__name__}: {line}"
    )


def thinking_tags(config: Config, engine: str) -> tuple[str, str] | None:
    """The pair of tags that native budgets watch: an engine has one, so routes that disagree leave it without."""
    pairs = {route.of_family.thinking for route in config.routes.values() if route.engine == engine} - {None}
    return pairs.pop() if len(pairs) == 1 else None
