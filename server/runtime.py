"""What a running server is made of: its settings, engines, routes and metrics, put together once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import Request

from controllers import CONTROLLERS
from controllers.outage import Outage
from controllers.pace import Pace
from controllers.policy import Defaults, KeyLimits
from controllers.route import Route, build_route, with_target
from models.engine import Engine, Sampling
from models.families import Family
from models.templates import opens_thinking
from server.config import Config, ConfigError, RouteConfig
from server.errors import model_not_found
from server.metrics import Metrics
from server.running import Running


@dataclass(frozen=True, slots=True)
class Runtime:
    """Handed to every request as `app.state.runtime`.

    `draining` is set when the server has been told to stop, `cut` when its time to drain is over as well: what then
    still runs is cancelled. `started` is the Unix time, in seconds, at which the engines were up.
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

    @property
    def targets(self) -> Mapping[str, str]:
        """The target engines of routes that can do without them, by route."""
        speculative = {name: route.speculative for name, route in self.config.routes.items()}
        return {name: each.target for name, each in speculative.items() if each and each.on_failure == "alone"}

    @property
    def needed(self) -> frozenset[str]:
        """The engines without which the server cannot serve all its routes."""
        own = {route.engine for route in self.config.routes.values()}
        return frozenset(own | (self.engines.keys() - self.targets.values()))

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
    outages: dict[str, Outage] = {}
    routes = {
        name: _with_target(
            name, config.routes[name], _route(name, route, engines[route.engine], paces[route.engine]), engines, outages
        )
        for name, route in config.routes.items()
    }
    keys = {name: KeyLimits(key.budget, key.budget_cap) for name, key in config.keys.items()}
    metrics = Metrics(routes, {name: engine.running for name, engine in engines.items()})
    metrics.degraded({name: partial(getattr, route, "degraded") for name, route in routes.items() if route.target})
    return Runtime(config, engines, routes, metrics, asyncio.Event(), asyncio.Event(), started, Running(), keys)


def _with_target(
    name: str, config: RouteConfig, route: Route, engines: Mapping[str, Engine], outages: dict[str, Outage]
) -> Route:
    settings = config.speculative
    if settings is None:
        return route
    engine = engines[settings.target]
    _check_template(name, config.of_family, settings.target, engine)
    try:
        return with_target(
            route,
            engine,
            settings.as_settings(),
            outages.setdefault(settings.target, Outage(settings.rest_seconds)),
            adapter=settings.adapter or None,
            on_failure=settings.on_failure,
            patience=settings.patience,
        )
    except ValueError as error:
        raise ConfigError(f"routes.{name}.speculative: {error}") from error


def _check_template(name: str, family: Family, engine_name: str, engine: Engine) -> None:
    if family.thinking is not None and opens_thinking(family, engine.tokenizer) != family.template_opens:
        does = "does not open" if family.template_opens else "already opens"
        raise ConfigError(
            f"routes.{name}.family: the chat template of engine {engine_name!r} {does} {family.thinking[0]},"
            f" which family {family.name!r} does not expect"
        )


def _route(name: str, config: RouteConfig, engine: Engine, pace: Pace) -> Route:
    family = config.of_family
    _check_template(name, family, config.engine, engine)
    return build_route(
        name,
        CONTROLLERS[config.controller],
        family,
        engine,
        Defaults(
            config.default_mode,
            config.think_threshold,
            config.budgets.as_policy(),
            config.speculative.as_settings() if config.speculative else None,
        ),
        adapter=config.adapter or None,
        sampling=Sampling(**config.sampling.model_dump(exclude_none=True)),
        description=config.description,
        pace=pace,
    )
