"""One reply, ready to run: what every API of conversations shares between its body and its frames."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass, replace

from fastapi import Request

from controllers.concurrency import merge
from controllers.generation.events import Conversation, Decision, Event, Interrupt, noted
from controllers.policy.fold import Policy, fold
from controllers.route import Route
from models.engines.base import InvalidRequest, Sampling
from models.formats.chunks import Kind
from server.apis.shared.request import GenerationRequest
from server.apis.shared.usage import UsageCounter
from server.assemble import runtime_of
from server.observability.request_observer import RequestObserver, watch


@dataclass(frozen=True, slots=True)
class Job:
    """A validated request. `reply_id` is the id that clients see, `listing` makes it findable while it runs."""

    asked: GenerationRequest
    route: Route
    policy: Policy
    sampling: Sampling
    conversation: Conversation
    reply_id: str
    created: int
    listing: AbstractContextManager[None]
    watch: RequestObserver

    @property
    def interrupt(self) -> Interrupt:
        return self.conversation.interrupt or Interrupt()

    @property
    def hidden(self) -> Sequence[Kind]:
        """The kinds of chunks whose text is not for the client."""
        return ("budget",) if self.policy.show_reasoning else ("budget", "reasoning")

    async def events(self, tally: UsageCounter) -> AsyncGenerator[tuple[int, Event], None]:
        """Events of all choices, counted and watched. Choice i is a run of its own with seed + i."""
        route, watching = self.route, self.watch
        runs = [
            route.controller(route, self.conversation, self.policy, sampling)
            for sampling in _seeded(self.sampling, self.asked.n)
        ]
        with watching, self.listing, _in_words_of(self.asked):
            async with aclosing(merge(runs)) as events:
                async for index, said in events:
                    event = noted(said, self.conversation.notes)
                    watching.saw(index, event)
                    tally.add(event)
                    yield index, event


def prepare(asked: GenerationRequest, request: Request, reply_id: str = "") -> Job:
    """What was asked for, folded into a job. Raises `PolicyError` or `ApiError` naming the field at fault.

    Without a `reply_id` the reply is called after the request.
    """
    runtime, state = runtime_of(request), request.scope["state"]
    request_id, key_name = state["request_id"], state.get("key_name")
    route = runtime.route(asked.model)
    if not asked.messages:
        raise InvalidRequest("the conversation is empty", asked.conversation_field)
    policy = fold(asked.controls, route.family, route.defaults, runtime.keys.get(key_name or ""))
    interrupt = Interrupt()
    conversation = asked.conversation(route, interrupt)
    reply_id = reply_id or f"chatcmpl-{request_id}"
    return Job(
        asked,
        route,
        policy,
        asked.sampling(route.sampling),
        conversation,
        reply_id,
        int(time.time()),
        runtime.running.listed(key_name, (request_id, reply_id), interrupt),
        watch(request, route.name),
    )


def decision_headers(decision: Decision) -> dict[str, str]:
    """The short form of the decision record."""
    headers: dict[str, str] = {"x-reasond-mode": decision.mode, "x-reasond-chosen-by": decision.chosen_by}
    if decision.budget is not None and decision.budget.enforced is not None:
        headers["x-reasond-budget"] = str(decision.budget.enforced)
    return headers


@contextmanager
def _in_words_of(asked: GenerationRequest) -> Iterator[None]:
    """What an engine says of a field is said of the API's own."""
    constraint = asked.answer.format_field if asked.answer.text is not None else "tools"
    try:
        yield
    except InvalidRequest as error:
        names = {"messages": asked.conversation_field, "grammar": constraint}
        error.field = names.get(error.field, error.field)
        raise


def _seeded(sampling: Sampling, n: int) -> list[Sampling]:
    if n == 1 or sampling.seed is None:
        return [sampling] * n
    return [replace(sampling, seed=sampling.seed + i) for i in range(n)]
