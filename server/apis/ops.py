"""What operators and clients ask about the server itself: models, health, readiness, version, metrics."""

import asyncio
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controllers.generation.route import Route
from controllers.judging.judge import Judge
from controllers.policy.fold import modes
from models.engines.base import Engine, EngineError
from server import __version__
from server.apis import openapi
from server.assemble import Runtime, runtime_of
from server.edges import auth
from server.edges.endpoints import Endpoint, Routes
from server.edges.errors import speaks_anthropic
from server.observability.collectors import engine_state
from server.observability.summed import summed

log = logging.getLogger(__name__)
routes = Routes()
unlisted = Routes(include_in_schema=False)

CHECK_SECONDS = 5.0


@routes.get("/v1/models")
async def models(request: Request) -> Response:
    """Anthropic's list for its clients, who show themselves by their headers."""
    runtime = runtime_of(request)
    if speaks_anthropic(request.scope):
        listed = [_anthropic_card(runtime, name) for name in runtime.names]
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        return JSONResponse({"data": listed, "has_more": False, **ends})
    return JSONResponse({"object": "list", "data": [_card(runtime, name) for name in runtime.names]})


@routes.get("/v1/models/{name:path}")
async def model(request: Request) -> Response:
    runtime, name = runtime_of(request), request.path_params["name"]
    card = _anthropic_card if speaks_anthropic(request.scope) else _card
    return JSONResponse(card(runtime, name))


def _card(runtime: Runtime, name: str) -> dict[str, Any]:
    """The card of a route, under any of its names."""
    route = runtime.route(name)
    card = model_card(route, runtime.started, runtime.judges.get(route.name))
    deciding = {"deciding": runtime.deciders[route.name]} if route.name in runtime.deciders else {}
    return {**card, "id": name, "reasond": card["reasond"] | deciding}


def _anthropic_card(runtime: Runtime, name: str) -> dict[str, Any]:
    """Anthropic's model object."""
    card = _card(runtime, name)
    created = datetime.fromtimestamp(runtime.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"type": "model", "id": name, "display_name": card["reasond"]["description"] or name, "created_at": created}
    return {**told, "max_input_tokens": card["max_model_len"], "reasond": card["reasond"]}


def model_card(route: Route, created: int, judge: Judge | None = None) -> dict[str, Any]:
    """OpenAI's model object, vLLM's `max_model_len`, and under `reasond` what the route can do."""
    return {
        "id": route.name,
        "object": "model",
        "created": created,
        "owned_by": "reasond",
        "max_model_len": route.engine.context_length,
        "reasond": {
            "description": route.description,
            "family": route.family.name,
            "family_found_by": route.found_by,
            "tools": tool_abilities(route),
            "template_efforts": [word for word in route.family.efforts if word != "argument"],
            "modes": modes(route.family, route.defaults.decider),
            "default_mode": route.defaults.mode,
            "auto": route.family.chooses or route.defaults.decider is not None,
            "decider": route.defaults.decider or ("model" if route.family.chooses else None),
            "think_threshold": route.defaults.think_threshold,
            "budgets": budget_abilities(route),
            "exit": route.defaults.early_exit and route.defaults.early_exit.rule,
            "speculative": target_abilities(route),
            "best_of": route.defaults.best_of,
            "judge": judge and judge_card(judge),
        },
    }


def tool_abilities(route: Route) -> dict[str, Any] | None:
    """How tool calls are written, and whether a grammar can hold the model to them; None where it is shown no tools."""
    if route.calls is None:
        return None
    return {"arguments": route.calls.style_name, "constrained": route.calls_constrained}


def target_abilities(route: Route) -> dict[str, Any] | None:
    """What the target model does on this route, and whether it is there; None where there is none."""
    if route.target is None:
        return None
    settings = route.target.settings
    return {
        "target": route.target.route.engine.name,
        "method": settings.method,
        "degraded": route.degraded,
        "on_failure": settings.on_failure,
        **asdict(route.target.lengths),
        "caps": asdict(settings.longest),
    }


def judge_card(judge: Judge) -> dict[str, Any]:
    return {"family": judge.family.name, "judges": list(judge.family.outcomes), "votes": judge.settings.votes}


def budget_abilities(route: Route) -> dict[str, Any] | None:
    """What budgets mean on this route; None where its model has none."""
    budgets = route.defaults.budgets
    if route.family.scope is None:
        return None
    return {
        "scope": route.family.scope,
        "declares": route.family.budget is not None,
        "default": budgets.default,
        "cap": budgets.cap,
        "efforts": dict(budgets.efforts),
        "answer_reserve": budgets.reserve,
        "cut": "graceful" if budgets.graceful else "hard",
    }


@routes.get("/health")
async def health(request: Request) -> Response:
    """The process answers, and can mend what is down: a restart is for one that hangs, or has lost an engine."""
    runtime = runtime_of(request)
    if lost := sorted(name for name in runtime.config.needed_engines if engine_state(runtime.engines[name]) == "lost"):
        return JSONResponse({"status": "engine lost", "engines": lost}, 503)
    return JSONResponse({"status": "ok"})


@routes.get("/ready")
async def ready(request: Request) -> Response:
    """Whether requests should be sent here now. A route that is degraded serves without its target."""
    runtime = runtime_of(request)
    if runtime.draining.is_set():
        return JSONResponse({"status": "draining"}, 503)
    alive = await asyncio.gather(*(is_alive(name, engine) for name, engine in runtime.engines.items()))
    down = {name for name, is_up in zip(runtime.engines, alive, strict=True) if not is_up}
    if down & runtime.config.needed_engines:
        states = {name: state for name in sorted(down) if (state := engine_state(runtime.engines[name])) != "up"}
        return JSONResponse({"status": "engine down"} | ({"engines": states} if states else {}), 503)
    degraded = [route for route, target in runtime.config.targets("alone").items() if target in down]
    return JSONResponse({"status": "ready", "degraded": degraded} if degraded else {"status": "ready"})


async def is_alive(name: str, engine: Engine) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await engine.check()
    except (EngineError, TimeoutError) as error:
        log.warning("engine %s is not ready: %s", name, str(error) or "no answer in time")
        return False
    return True


@routes.get("/version")
async def version(request: Request) -> Response:
    return JSONResponse({"version": __version__})


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Written in a worker thread, since some thousand series take milliseconds. Where several processes share the port
    the answer is for all of them."""
    metrics = runtime_of(request).metrics
    metrics.tasks.set(len(asyncio.all_tasks()))
    text = await asyncio.to_thread(metrics.text)
    if request.app.state.siblings and request.scope["server"][1] is not None:  # else a sibling asks, on its socket
        told = await asyncio.gather(*(_metrics_of(sibling, request) for sibling in request.app.state.siblings))
        text = await asyncio.to_thread(summed, [text.decode(), *told])
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _metrics_of(sibling: Path, request: Request) -> str:
    """Those of another process of this server, under the caller's own key; nothing where it does not answer."""
    keys = {name: value for name, value in request.headers.items() if name in ("authorization", *auth.HEADERS)}
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(sibling))) as client:
            return (await client.get("http://sibling/metrics", headers=keys, timeout=CHECK_SECONDS)).text
    except httpx.HTTPError as error:
        log.warning("a process of this server does not tell its metrics: %s", type(error).__name__)
        return ""


@unlisted.get("/openapi.json")
async def openapi_document(request: Request) -> Response:
    endpoints = [each for each in request.app.routes if isinstance(each, Endpoint) and each.include_in_schema]
    return JSONResponse(openapi.document(endpoints, sorted(runtime_of(request).routes)))


routes += unlisted
