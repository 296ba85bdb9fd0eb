"""The application: routes and their edges over engines that are up."""

import logging
import os
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from models.engines.base import Engine
from server import __version__
from server.apis import entrance, interrupts, ops, reward_protocols, tokenize
from server.apis.chat import routes as chat
from server.apis.completions import routes as completions
from server.apis.messages import routes as messages
from server.apis.responses import routes as responses
from server.apis.rewards import routes as rewards
from server.assemble import assemble
from server.config.load import Config, ConfigError
from server.edges.auth import OPEN_PATHS, Authentication, Keys
from server.edges.request_scope import Observer, RequestScope
from server.page import routes as page
from server.stores.shared import Responses

log = logging.getLogger(__name__)


class Application(FastAPI):
    """Without the framework's own layers around errors: `RequestScope` answers what handlers raise, foreseen or not."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for cls, arguments, options in reversed(self.user_middleware):
            app = cls(app, *arguments, **options)
        return app


def create_app(
    config: Config,
    engines: Mapping[str, Engine],
    observers: Sequence[Observer] = (),
    store: Responses | None = None,
) -> Application:
    """The server for a configuration, over its engines and its store of responses, which the caller closes; left out,
    the store is in memory. Each request is reported to `observers` when it is over.

    Raises `ConfigError` where an engine turns out not to fit its route, or the keys cannot be read.
    """
    conversations = [*chat.routes, *completions.routes, *responses.routes, *messages.routes, *interrupts.routes]
    first = page.routes if config.server.page else entrance.routes
    others = [*rewards.routes, *reward_protocols.routes(), *tokenize.routes, *ops.routes, *first]
    app = Application(title="reasond", version=__version__, openapi_url=None, routes=[*conversations, *others])
    app.router.default = entrance.nowhere
    app.state.siblings = ()
    app.state.runtime = assemble(config, engines, int(time.time()), store)
    _add_middlewares(app, config, observers)
    return app


def _add_middlewares(app: Application, config: Config, observers: Sequence[Observer]) -> None:
    """Added from the inside out: the last one meets the request first."""
    keys = app.state.keys = Keys(config.server.keys_file, os.environ)
    if strangers := config.keys.keys() - set(keys.names.values()):
        raise ConfigError(f"keys.{min(strangers)}: there is no API key of this name")
    if keys.names:
        open_paths = OPEN_PATHS | page.PATHS if config.server.page else OPEN_PATHS
        app.add_middleware(Authentication, keys=keys, open_paths=open_paths)
    else:
        log.warning("no API keys are configured: everyone who can reach this server may use it")
    app.add_middleware(RequestScope, observers=observers, limits=config.server)
    if config.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
