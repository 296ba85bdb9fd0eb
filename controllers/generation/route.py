"""A route: the name that a client puts in `model`, and all that a controller needs behind it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from controllers.generation.bounds import MOST_DECLARED
from controllers.generation.circuit_breaker import CircuitBreaker
from controllers.generation.events import Conversation, Event
from controllers.generation.steps import Cues
from controllers.generation.throughput import ThroughputEstimate
from controllers.policy.fold import Defaults, Policy
from controllers.policy.speculation import SpeculativeConfig, TakeoverLimits
from models.engines.base import Engine, Sampling, Tokenizer
from models.formats.reasoning import Mode, ReasoningFormat
from models.formats.template import SystemPlace, system_place, takes_images, writes_calls
from models.formats.vocabulary import Tags, compile_tags
from models.tool_calls.formats import ToolCallFormat
from models.tool_calls.grammar import has_grammar

if TYPE_CHECKING:
    from controllers.deciders.base import ModeDecider

Controller = Callable[["Route", Conversation, Policy, Sampling], AsyncGenerator[Event, None]]
"""Turns one request into a stream of events: a decision and chunks, then one `Finished`. Closing it ends its work."""


@dataclass(frozen=True, slots=True)
class Forced:
    """Text that the server writes: `pieces[i]` is the text that becomes known with `token_ids[i]`."""

    token_ids: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetModel:
    """The large model of a speculative route: an inner route of its own, that no client can name.

    `lengths` are those of a request that names none. `breaker` is shared by all routes that ask this engine.
    `excess_prompt` is in the small model's vocabulary. `scores` are the target's ids of the digits.
    """

    route: "Route"
    settings: SpeculativeConfig
    lengths: TakeoverLimits
    cues: Cues
    breaker: CircuitBreaker
    excess_prompt: Forced
    scores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """One route over one engine, or over two where there is a `target`.

    `prefixes` are the forced token ids of each mode of the family. `sampling` holds the route's defaults for what a
    request leaves open; what both leave open is the engine's own default. `wrap_up` and `closing` are what the server
    writes where it ends a budget's scope; `ends` is the token that ends a reply of this family. `to_solution` is
    written where a model does not end its budget field, which has at most `longest_field` tokens. `native_budget` says
    that the engine itself can hold thinking to a number of tokens. `pace` is how fast the engine writes now, shared by
    all its routes. `calls` is how the model writes tool calls, None where it is shown no
    tools; `calls_constrained` says that a grammar can hold it to them. `decider` says whether a reply
    of mode `auto` thinks; None leaves it to the model. `system_place` says where its chat template takes system turns.
    `found_by` says why it has its family. `sees`: its model and its template take images.
    """

    name: str
    controller: Controller
    family: ReasoningFormat
    engine: Engine
    defaults: Defaults
    tags: Tags
    prefixes: Mapping[Mode, tuple[int, ...]]
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    description: str = ""
    wrap_up: Forced = field(default_factory=Forced)
    closing: Forced = field(default_factory=Forced)
    to_solution: Forced = field(default_factory=Forced)
    longest_field: int = 0
    ends: int | None = None
    native_budget: bool = False
    pace: ThroughputEstimate = field(default_factory=ThroughputEstimate)
    calls: ToolCallFormat | None = None
    calls_constrained: bool = False
    system_place: SystemPlace = "anywhere"
    found_by: str = ""
    sees: bool = False
    target: TargetModel | None = None
    decider: "ModeDecider | None" = None

    @property
    def answers_at_once(self) -> bool:
        """Whether a reply is all answer: nothing of the model's own comes before it."""
        return not self.family.tags

    @property
    def degraded(self) -> bool:
        """Whether the route does without its target just now."""
        return self.target is not None and self.target.breaker.degraded

    @property
    def solution_is_text(self) -> bool:
        """Whether the end of a solution is known by its characters only: no token to stop at."""
        return self.family.solution is not None and self.ends is None


def build_route(
    name: str,
    controller: Controller,
    family: ReasoningFormat,
    engine: Engine,
    defaults: Defaults,
    *,
    adapter: str | None = None,
    sampling: Sampling | None = None,
    description: str = "",
    pace: ThroughputEstimate | None = None,
    found_by: str = "",
) -> Route:
    """A route with its family's tags, prefixes and phrases resolved against the engine's vocabulary."""
    tokenizer = engine.tokenizer
    behind = {mode: family.behind.get(mode, "") for mode in family.able}
    calls = family.tools if writes_calls(family, tokenizer) else None
    closed_by_token = family.thinking is not None and tokenizer.control_id(family.thinking[1]) is not None
    return Route(
        name=name,
        controller=controller,
        family=family,
        engine=engine,
        defaults=defaults,
        tags=compile_tags(family, tokenizer),
        prefixes={mode: tuple(tokenizer.encode_control(text)) for mode, text in behind.items()},
        adapter=adapter,
        sampling=sampling or Sampling(),
        description=description,
        wrap_up=forced(tokenizer, family.wrap_up),
        closing=forced(tokenizer, family.closing),
        to_solution=forced(tokenizer, family.to_solution),
        longest_field=len(tokenizer.encode_control(family.budget_field(MOST_DECLARED))),
        ends=tokenizer.control_id(family.solution[1]) if family.solution else None,
        native_budget=closed_by_token and engine.native_budget == family.thinking,
        pace=pace or ThroughputEstimate(),
        calls=calls,
        calls_constrained=calls is not None and has_grammar(calls) and not family.answer,
        system_place=system_place(tokenizer),
        found_by=found_by,
        sees=engine.process_images is not None and takes_images(tokenizer),
    )


def with_target(route: Route, engine: Engine, settings: SpeculativeConfig, breaker: CircuitBreaker) -> Route:
    """The route with a second engine beside its own. Raises `ValueError` where it cannot score with one token."""
    adapter = settings.adapter or None
    inner = build_route(route.name, route.controller, route.family, engine, route.defaults, adapter=adapter)
    own, other = route.engine.tokenizer, engine.tokenizer
    digits = [other.encode_control(str(digit)) for digit in range(10)]
    if settings.method == "accept" and any(len(token_ids) != 1 for token_ids in digits):
        raise ValueError("a digit is not one token of the target's vocabulary")
    scores = tuple(token_ids[0] for token_ids in digits)
    lengths, cues, prompt = settings.lengths, Cues(settings.all_cues), forced(own, settings.excess_prompt)
    target = TargetModel(inner, settings, lengths, cues, breaker, prompt, scores)
    # An engine that holds budgets counts its own tokens: they are the reply's positions in one vocabulary only.
    native = route.native_budget and own.vocabulary == other.vocabulary
    return replace(route, target=target, sees=False, native_budget=native)  # the target sees nothing


def forced(tokenizer: Tokenizer, text: str) -> Forced:
    """`text`, control tokens included, as the server writes it. A character of several tokens comes with its last."""
    token_ids = tuple(tokenizer.encode_control(text))
    known = [tokenizer.decode(token_ids[:count], skip_special_tokens=False) for count in range(len(token_ids) + 1)]
    whole = [text.rstrip("\ufffd") for text in known]
    return Forced(token_ids, tuple(after[len(before) :] for before, after in pairwise(whole)))
