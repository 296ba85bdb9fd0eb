"""A share of the direct replies is thought through as well, unseen: whether the answer would have been another."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from controllers.deciders.answers import Answer, Compared
from controllers.generation.events import Conversation, Event, Interrupt
from controllers.generation.route import Controller, Route
from controllers.policy.fold import Policy
from models.engines.base import EngineError, Sampling

MOST_PRESSURE = 0.5
"""Above this the engine has no time for it."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A controller whose direct replies, where it was decided so, are held against thoughtful ones at `rate`. One at a
    time; `running` holds its task, `told` takes whether the two answers were the same."""

    controller: Controller
    rate: float
    compared: Compared
    running: set[asyncio.Task[None]]
    told: Callable[[bool], None]

    async def __call__(
        self, route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> AsyncGenerator[Event, None]:
        answer = Answer()
        async with aclosing(self.controller(route, request, policy, sampling)) as events:
            async for event in events:
                answer.add(event)
                yield event
        if policy.mode == "auto" and self._drawn(route, answer):
            task = asyncio.ensure_future(self._think(answer, route, request, policy, sampling))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    def _drawn(self, route: Route, answer: Answer) -> bool:
        direct = answer.end is not None and answer.whole and answer.end.decision.mode == "no_think"
        return direct and not self.running and random.random() < self.rate and route.pace.pressure <= MOST_PRESSURE

    async def _think(
        self, direct: Answer, route: Route, request: Conversation, policy: Policy, sampling: Sampling
    ) -> None:
        thinks = replace(policy, mode="think", chosen_by="route", think_threshold=None, deadline=None)
        thought = Answer()
        try:
            unseen = replace(request, interrupt=Interrupt())
            async with aclosing(self.controller(route, unseen, thinks, replace(sampling, whole=True))) as events:
                async for event in events:
                    thought.add(event)
        except EngineError:
            return
        if thought.whole:
            self.told(thought.gist(self.compared) == direct.gist(self.compared))
