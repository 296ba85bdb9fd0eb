"""What outlives a request: the responses of `/v1/responses`, in memory or shared by replicas."""

import os

from server.config.load import Config, ConfigError
from server.stores.responses import ResponseStore
from server.stores.shared import Backend, Responses


def open_responses(config: Config) -> Responses:
    """The store that the configuration names. Raises `ConfigError` where it cannot be had."""
    settings = config.server
    told = os.environ.get(settings.store_env, "")
    if not told and "store_env" in settings.model_fields_set:
        raise ConfigError(f"server.store_env: the environment has no {settings.store_env}")
    where = settings.store or told
    local = ResponseStore(settings.stored_responses, settings.stored_bytes)
    try:
        return Responses(local, _backend(where) if where else None, settings.store_seconds)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"server.store: {error}") from error


def _backend(where: str) -> Backend:
    if where.startswith("sqlite:"):
        from server.stores.sqlite import SqliteBackend

        return SqliteBackend(where.removeprefix("sqlite:"))
    from server.stores.redis import RedisBackend

    return RedisBackend(where)
