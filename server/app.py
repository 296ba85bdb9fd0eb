"""The application: middlewares and routers over engines that are up."""

import logging
import os
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from models.engine import Engine
from server import (
    __version__,
    chat,
    completions,
    errors,
    messages,
    openapi,
    ops,
    reasoning,
    responses,
    reward_protocols,
    rewards,
)
from server.auth import Authentication, load_keys
from server.body_limit import BodyLimit
from server.config import Config, ConfigError
from server.request_scope import Observer, RequestScope
from server.runtime import assemble

log = logging.getLogger(__name__)


def create_app(config: Config, engines: Mapping[str, Engine], observers: Sequence[Observer] = ()) -> FastAPI:
    """The server for a configuration, over its engines, which the caller closes. Each request is reported to
    `observers` when it is over.

    Raises `ConfigError` where an engine turns out not to fit its route, or the keys cannot be read.
    """
    app = FastAPI(title="reasond", version=__version__, docs_url=None, redoc_url=None)
    app.state.runtime = assemble(config, engines, int(time.time()))
    errors.install(app)
    openapi.install(app)
    _add_middlewares(app, config, observers)
    app.include_router(ops.router)
    app.include_router(chat.router)
    app.include_router(completions.router)
    app.include_router(responses.router)
    app.include_router(messages.router)
    app.include_router(reasoning.router)
    app.include_router(rewards.router)
    app.include_router(reward_protocols.router)
    return app


def _add_middlewares(app: FastAPI, config: Config, observers: Sequence[Observer]) -> None:
    """Added from the inside out: the last one meets the request first."""
    app.add_middleware(BodyLimit, max_bytes=config.server.max_body_bytes)
    keys = load_keys(config.server.keys_file, os.environ)
    if strangers := config.keys.keys() - set(keys.values()):
        raise ConfigError(f"keys.{min(strangers)}: there is no API key of this name")
    if keys:
        app.add_middleware(Authentication, keys=keys)
    else:
        log.warning("no API keys are configured: everyone who can reach this server may use it")
    app.add_middleware(RequestScope, observers=observers)
    if config.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
