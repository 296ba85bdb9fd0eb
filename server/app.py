"""The application: middlewares and routers over engines that are up."""

import logging
import os
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from models.engines.base import Engine
from server import __version__
from server.apis import interrupts, openapi, ops, reward_protocols
from server.apis.chat import routes as chat
from server.apis.completions import routes as completions
from server.apis.messages import routes as messages
from server.apis.responses import routes as responses
from server.apis.rewards import routes as rewards
from server.assemble import assemble
from server.config.load import Config, ConfigError
from server.edges import errors
from server.edges.auth import OPEN_PATHS, Authentication, load_keys
from server.edges.body_limit import BodyLimit
from server.edges.request_scope import Observer, RequestScope
from server.page import routes as page

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
    app.include_router(interrupts.router)
    app.include_router(rewards.router)
    app.include_router(reward_protocols.routes())
    if config.server.page:
        app.include_router(page.router)
    return app


def _add_middlewares(app: FastAPI, config: Config, observers: Sequence[Observer]) -> None:
    """Added from the inside out: the last one meets the request first."""
    app.add_middleware(BodyLimit, max_bytes=config.server.max_body_bytes)
    keys = load_keys(config.server.keys_file, os.environ)
    if strangers := config.keys.keys() - set(keys.values()):
        raise ConfigError(f"keys.{min(strangers)}: there is no API key of this name")
    if keys:
        open_paths = OPEN_PATHS | page.PATHS if config.server.page else OPEN_PATHS
        app.add_middleware(Authentication, keys=keys, open_paths=open_paths)
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
