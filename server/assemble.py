"""What a running server is made of: its settings, engines, routes and metrics, put together once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from secrets import token_bytes
from typing import Any

from starlette.requests import Request

from controllers import CONTROLLERS
from controllers.deciders import Patient, load_decider
from controllers.deciders.shadow import Shadow
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.route import Controller, Route, build_route, with_target
from controllers.generation.throughput import ThroughputEstimate
from controllers.judging.best_of_n import best_of_controller
from controllers.judging.chat import chat_controller
from controllers.judging.judge import Judge
from controllers.policy.fold import Defaults, KeyLimits
from models.engines.base import Engine, Sampling
from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat
from models.formats.template import prove
from models.judge_prompts.families import JUDGE_FAMILIES, load_forms
from models.text.template_marks import Marks, marks_of
from server.admission import Admission
from server.apis.messages.seal import Seal
from server.config.load import Config, ConfigError
from server.config.routes import RouteConfig
from server.edges.errors import model_not_found, no_judge, not_a_judge
from server.fingerprint import decider_card
from server.observability.collectors import AdmissionCollector, EngineCollector
from server.observability.metrics import Metrics
from server.running_requests import Running
from server.stores.responses import ResponseStore
from server.stores.shared import Responses
from server.stores.verdicts import StoredVerdicts


@dataclass(frozen=True, slots=True)
class Runtime:
    """Handed to every request as `app.state.runtime`.

    `draining` is set when the server has been told to stop, `closing` when the notice of it is over and nothing new is
    to be begun, `cut` when its time to drain is over as well: what then still runs is cancelled. `background` holds the
    work that no connection waits for. `started` is the Unix time, in seconds, at which the engines were up. `marks` are
    those of the judges' templates. `names` are all that clients may put in `model`, with the route of each.
    `deciders` is what clients are told of those that routes have.
    """

    config: Config
    engines: Mapping[str, Engine]
    routes: Mapping[str, Route]
    judges: Mapping[str, Judge]
    marks: Mapping[str, Marks]
    metrics: Metrics
    draining: asyncio.Event
    closing: asyncio.Event
    cut: asyncio.Event
    started: int
    running: Running
    keys: Mapping[str, KeyLimits]
    responses: Responses
    admission: Admission
    background: set[asyncio.Task[None]]
    seal: Seal
    names: Mapping[str, str]
    deciders: Mapping[str, Mapping[str, Any]]

    def route(self, name: str) -> Route:
        """The route that a client named. Raises the API's 404."""
        if name not in self.names:
            raise model_not_found(name, self.names)
        return self.routes[self.names[name]]

    def limits(self, request: Request) -> KeyLimits:
        """Those of the request's key."""
        name = request.scope["state"].get("key_name") or ""
        return self.keys.get(name) or KeyLimits(name=name)

    def judge(self, name: str | None) -> Judge:
        """The judge route that a client named, or the one for clients that cannot. Raises the API's errors."""
        name = name or self.config.rewards.judge or next(iter(self.judges), "")
        name = self.names.get(name, name)
        if name not in self.judges:
            raise not_a_judge(self.route(name).name) if name else no_judge()
        return self.judges[name]


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def assemble(
    config: Config, engines: Mapping[str, Engine], started: int, responses: Responses | None = None
) -> Runtime:
    """Routes over engines that are up. Raises `ConfigError` where an engine turns out not to fit its route."""
    if missing := config.engines.keys() - engines.keys():
        raise ConfigError(f"engines.{min(missing)}: not given")
    metrics = Metrics(config.routes, {name: engine.running for name, engine in engines.items()})
    admission = Admission(
        {name: route.admission for name, route in config.routes.items()},
        {name: (key.max_requests, key.tokens_per_minute) for name, key in config.keys.items()},
    )
    metrics.registry.register(EngineCollector(engines))
    metrics.registry.register(AdmissionCollector(admission))
    models = {name: LoadedModel(engine, ThroughputEstimate(), CircuitBreaker()) for name, engine in engines.items()}
    store = responses or Responses(ResponseStore(config.server.stored_responses, config.server.stored_bytes))
    judges = {
        name: _judge(name, config, models, metrics, store)
        for name, route in config.routes.items()
        if route.controller == "judge"
    }
    chatting = {name: replace(judge.route, controller=chat_controller(judge)) for name, judge in judges.items()}
    routes = {name: chatting.get(name) or _with_target(config, name, models, judges) for name in config.routes}
    routes = {name: _shadowed(route, config.routes[name], metrics) for name, route in routes.items()}
    metrics.degraded({name: partial(getattr, route, "degraded") for name, route in routes.items() if route.target})
    for name, route in routes.items():
        if isinstance(route.decider, Patient):
            metrics.watch_drifts(name, route.decider.drifts())
    metrics.watch_pressure({name: model.pace for name, model in models.items()})
    keys = {
        name: KeyLimits(key.budget, key.budget_cap, name, key.deadline_seconds or None)
        for name, key in config.keys.items()
    }
    marks = {name: marks_of(judge.route.engine.tokenizer, judge.route.family) for name, judge in judges.items()}
    return Runtime(
        config,
        engines,
        routes,
        judges,
        marks,
        metrics,
        draining=asyncio.Event(),
        closing=asyncio.Event(),
        cut=asyncio.Event(),
        started=started,
        running=Running(),
        keys=keys,
        responses=store,
        admission=admission,
        background=set(),
        seal=Seal(config.server.seal_key.get_secret_value() or token_bytes(32)),
        names={name: route for route, each in config.routes.items() for name in (route, *each.names)},
        deciders={name: decider_card(config, name) for name, route in config.routes.items() if route.auto},
    )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine, how fast it writes, and whether routes that only get help from it can have it."""

    engine: Engine
    pace: ThroughputEstimate
    breaker: CircuitBreaker


def _judge(name: str, config: Config, models: Mapping[str, LoadedModel], metrics: Metrics, store: Responses) -> Judge:
    """A judge over the route of its own replies. Sampling that is left open is the paper's (arXiv 2505.14674)."""
    route, settings = config.routes[name], config.routes[name].judge
    forms = load_forms(JUDGE_FAMILIES[settings.family], settings.templates)
    texts = (text for form in forms.values() for text in (form.system, form.user))
    models[route.engine].engine.tokenizer.protect(texts)  # a verdict that may be a token is text where it is asked for
    built = _route(name, route, models[route.engine], {}, CONTROLLERS["mode"])
    drawn = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 8192, **route.sampling.model_dump(exclude_none=True)}
    return Judge(
        replace(built, sampling=Sampling(**drawn)),
        built.controller,
        forms,
        settings,
        shared=_shared_verdicts(name, config, store) if settings.shared_cache and settings.cache_size else None,
        on_verdict=metrics.routes[name].judged,
    )


def _shared_verdicts(name: str, config: Config, store: Responses) -> StoredVerdicts:
    if not store.has_backend:
        raise ConfigError(f"routes.{name}.judge.shared_cache: needs server.store")
    route = config.routes[name]
    return StoredVerdicts(store, (name, route.adapter, config.engines[route.engine].model))


def _shadowed(route: Route, config: RouteConfig, metrics: Metrics) -> Route:
    """The route with a share of its direct replies thought through as well, where that is wanted."""
    if config.auto is None or not config.auto.shadow_rate:
        return route
    auto, told = config.auto, metrics.routes[route.name].shadowed
    return replace(route, controller=Shadow(route.controller, auto.shadow_rate, auto.shadow_compare, set(), told))


def _with_target(config: Config, name: str, models: Mapping[str, LoadedModel], judges: Mapping[str, Judge]) -> Route:
    route = _route(name, config.routes[name], models[config.routes[name].engine], judges)
    settings = config.routes[name].speculative
    if settings is None:
        return route
    model = models[settings.target]
    _fitting(name, route.family, settings.target, model.engine)
    try:
        return with_target(route, model.engine, settings, model.breaker)
    except ValueError as error:
        raise ConfigError(f"routes.{name}.speculative: {error}") from error


def _fitting(name: str, family: ReasoningFormat, engine_name: str, engine: Engine) -> ReasoningFormat:
    """The family as the engine's template bears it out: with the calls of another family where the template writes
    those. Raises `ConfigError` where the family's thinking does not fit."""
    fault = prove(family, engine.tokenizer).fault
    if not fault:
        return family
    for tools in dict.fromkeys(other.tools for other in FAMILIES.values() if other.tools != family.tools):
        fitted = replace(family, tools=tools)
        proof = prove(fitted, engine.tokenizer)
        if not proof.fault and proof.calls:
            return fitted
    raise ConfigError(f"routes.{name}.family: {family.name!r} does not fit engine {engine_name!r}: {fault}")


def _route(
    name: str,
    config: RouteConfig,
    model: LoadedModel,
    judges: Mapping[str, Judge],
    controller: Controller | None = None,
) -> Route:
    engine = model.engine
    family = _fitting(name, config.of_family, config.engine, engine)
    controller = controller or CONTROLLERS[config.controller]
    if config.judged_by:
        controller = best_of_controller(judges[config.judged_by], controller)
    built = build_route(
        name,
        controller,
        family,
        engine,
        Defaults(
            config.default_mode,
            config.think_threshold,
            config.budgets.as_policy(family, engine.context_length),
            speculation=config.speculative,
            best_of=config.best_of if config.judged_by else None,
            loop=config.loop if config.loop.enabled else None,
            early_exit=config.exit,
            load=config.load,
            decider=config.auto.decider if config.auto else None,
        ),
        adapter=config.adapter or None,
        sampling=Sampling(**config.sampling.model_dump(exclude_none=True)),
        description=config.description,
        pace=model.pace,
        found_by=config.found_by,
    )
    if config.auto is None:
        return built
    try:
        return replace(built, decider=load_decider(config.auto, engine.tokenizer))
    except ValueError as error:
        raise ConfigError(f"routes.{name}.auto: {error}") from error
