"""A route: the name that a client puts in `model`, and all that a controller needs behind it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from controllers.policy import Defaults, Policy
from controllers.reply import Event, Request
from models.engine import Engine, Sampling
from models.families import Family, Mode, Tags, compile_tags

Controller = Callable[["Route", Request, Policy, Sampling], AsyncGenerator[Event, None]]
"""Turns one request into a stream of events: a decision and chunks, then one `Finished`. Closing it ends its work."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route over one engine.

    `prefixes` are the forced token ids of each mode of the family. `sampling` holds the route's defaults for what a
    request leaves open; what both leave open is the engine's own default.
    """

    name: str
    controller: Controller
    family: Family
    engine: Engine
    defaults: Defaults
    tags: Tags
    prefixes: Mapping[Mode, tuple[int, ...]]
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    description: str = ""


def build_route(
    name: str,
    controller: Controller,
    family: Family,
    engine: Engine,
    defaults: Defaults,
    *,
    adapter: str | None = None,
    sampling: Sampling | None = None,
    description: str = "",
) -> Route:
    """A route with its family's tags and prefixes resolved against the engine's vocabulary."""
    tokenizer = engine.tokenizer
    return Route(
        name,
        controller,
        family,
        engine,
        defaults,
        compile_tags(family, tokenizer),
        {mode: tuple(tokenizer.encode_control(text)) for mode, text in family.prefixes.items()},
        adapter,
        sampling or Sampling(),
        description,
    )
