"""What a running server is made of: its settings, engines, routes and metrics, put together once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from controllers import CONTROLLERS
from controllers.pace import Pace
from controllers.policy import Defaults, KeyLimits
from controllers.route import Route, build_route
from models.engine import Engine, Sampling
from models.templates import opens_thinking
from server.config import Config, ConfigError, RouteConfig
from server.errors import model_not_found
from server.metrics import Metrics
from server.response_store import ResponseStore
from server.running import Running


@dataclass(frozen=True, slots=True)
class Runtime:
    """Handed to every request as `app.state.runtime`.

    `draining` is set when the server has been told to stop, `cut` when its time to drain is over as well: what then
    still runs is cancelled. `background` holds the work that no connection waits for. `started` is the Unix time, in
    seconds, at which the engines were up.
    """

    config: Config
    engines: Mapping[str, Engine]
    routes: Mapping[str, Route]
    metrics: Metrics
    draining: asyncio.Event
    cut: asyncio.Event
    started: int
    running: Running
    keys: Mapping[str, KeyLimits]
    responses: ResponseStore
    background: set[asyncio.Task[None]]

    def route(self, name: str) -> Route:
        """The route that a client named. Raises the API's 404."""
        if name not in self.routes:
            raise model_not_found(name)
        return self.routes[name]


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def assemble(config: Config, engines: Mapping[str, Engine], started: int) -> Runtime:
    """Routes over engines that are up. Raises `ConfigError` where an engine turns out not to fit its route."""
    if missing := config.engines.keys() - engines.keys():
        raise ConfigError(f"engines.{min(missing)}: not given")
    paces = {name: Pace() for name in engines}
    routes = {
        name: _route(name, route, engines[route.engine], paces[route.engine]) for name, route in config.routes.items()
    }
    keys = {name: KeyLimits(key.budget, key.budget_cap) for name, key in config.keys.items()}
    metrics = Metrics(routes, {name: engine.running for name, engine in engines.items()})
    return Runtime(
        config,
        engines,
        routes,
        metrics,
        draining=asyncio.Event(),
        cut=asyncio.Event(),
        started=started,
        running=Running(),
        keys=keys,
        responses=ResponseStore(config.server.stored_responses, config.server.stored_bytes),
        background=set(),
    )


def _route(name: str, config: RouteConfig, engine: Engine, pace: Pace) -> Route:
    family = config.of_family
    if family.thinking is not None and opens_thinking(family, engine.tokenizer) != family.template_opens:
        does = "does not open" if family.template_opens else "already opens"
        raise ConfigError(
            f"routes.{name}.family: the chat template of engine {config.engine!r} {does} {family.thinking[0]},"
            f" which family {family.name!r} does not expect"
        )
    return build_route(
        name,
        CONTROLLERS[config.controller],
        family,
        engine,
        Defaults(config.default_mode, config.think_threshold, config.budgets.as_policy()),
        adapter=config.adapter or None,
        sampling=Sampling(**config.sampling.model_dump(exclude_none=True)),
        description=config.description,
        pace=pace,
    )
