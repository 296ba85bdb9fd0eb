"""From a validated request to its reply, streamed or whole: the one path of all conversation APIs."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from controllers.concurrency import gather
from controllers.generation.events import Conversation, Event, Interrupt, noted
from controllers.generation.route import Route
from controllers.policy.fold import Policy, fold
from models.engines.base import InvalidRequest, Sampling
from models.formats.chunks import Kind
from server.apis.shared.reply import Encoder
from server.apis.shared.request import GenerationRequest
from server.assemble import runtime_of
from server.edges.sse import EventStream, Put, while_connected
from server.observability.request_observer import RequestObserver, watch

BYTES_A_TOKEN = 4  # of a request's body, to estimate its prompt before it is rendered
E = TypeVar("E")
Take = Callable[[int, E], Awaitable[None] | None]
"""Takes an event of a choice, and may want to be waited for before the next."""
Run = Callable[[Take[E]], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Generation:
    """A validated request, ready to run. `reply_id` is the id that clients see, `listing` makes it findable while it
    runs."""

    request: GenerationRequest
    route: Route
    policy: Policy
    sampling: Sampling
    conversation: Conversation
    reply_id: str
    created: int
    listing: AbstractContextManager[None]
    observer: RequestObserver
    admitted: Callable[[], AbstractAsyncContextManager[None]]

    @property
    def interrupt(self) -> Interrupt:
        return self.conversation.interrupt or Interrupt()

    @property
    def hidden(self) -> Sequence[Kind]:
        """The kinds of chunks whose text is not for the client."""
        return ("budget",) if self.policy.show_reasoning else ("budget", "reasoning")

    async def run(self, take: Take[Event]) -> None:
        """Hands the events of all choices to `take`. Choice i is a run of its own with seed + i."""
        with self.observer, self.listing:
            try:
                async with self.admitted():
                    await gather([self._choice(i, each, take) for i, each in enumerate(self._samplings())])
            except InvalidRequest as error:
                raise self._in_words_of_the_api(error) from error.__cause__

    async def _choice(self, index: int, sampling: Sampling, take: Take[Event]) -> None:
        route, saw, notes = self.route, self.observer.saw, self.conversation.notes
        async with aclosing(route.controller(route, self.conversation, self.policy, sampling)) as events:
            async for raw in events:
                event = noted(raw, notes) if notes else raw
                saw(index, event)
                if (taking := take(index, event)) is not None:
                    await taking

    def _samplings(self) -> list[Sampling]:
        sampling, n = self.sampling, self.request.n
        if n == 1 or sampling.seed is None:
            return [sampling] * n
        return [replace(sampling, seed=sampling.seed + i) for i in range(n)]

    def _in_words_of_the_api(self, error: InvalidRequest) -> InvalidRequest:
        """What an engine says of a field is said of the API's own."""
        answer = self.request.answer
        constraint = answer.format_field if answer.text is not None else "tools"
        names = {"messages": self.request.conversation_field, "grammar": constraint}
        error.field = names.get(error.field, error.field)
        return error


def prepare(asked: GenerationRequest, request: Request, reply_id: str = "") -> Generation:
    """What was asked for, ready to run. Raises `PolicyError` or `ApiError` naming the field at fault.

    Without a `reply_id` the reply is called after the request.
    """
    runtime, state = runtime_of(request), request.scope["state"]
    request_id, key_name = state["request_id"], state.get("key_name")
    route = runtime.route(asked.model)
    if not asked.messages:
        raise InvalidRequest("the conversation is empty", asked.conversation_field)
    policy = fold(asked.controls, route.family, route.defaults, runtime.limits(request))
    asked.check(runtime.config.server, policy)
    interrupt = Interrupt()
    conversation = asked.conversation(route, interrupt)
    reply_id = reply_id or f"chatcmpl-{request_id}"
    sampling, observer = asked.sampling(route.sampling), watch(request, route.name)
    prompt = int(request.headers.get("content-length", 0)) // BYTES_A_TOKEN
    work = runtime.admission.estimate(route.name, prompt, sampling.max_tokens, policy.budget, asked.n)
    return Generation(
        request=asked,
        route=route,
        policy=policy,
        sampling=sampling,
        conversation=conversation,
        reply_id=reply_id,
        created=int(time.time()),
        listing=runtime.running.listed(key_name, (request_id, reply_id), interrupt),
        observer=observer,
        admitted=partial(runtime.admission.admitted, route.name, key_name, work, observer.usage, asked.n),
    )


async def respond(request: Request, run: Run[E], encoder: Encoder[E], *, stream: bool) -> Response:
    """The reply of a run in an API's words."""
    if not stream:
        return await while_connected(request.receive, complete(run, encoder))

    async def frames(put: Put) -> None:
        def take(index: int, event: E) -> Awaitable[None] | None:
            frame = encoder.frame(index, event)
            return put(frame) if frame else None

        await run(take)
        if end := encoder.end():
            await put(end)

    return EventStream(frames, encoder.headers, encoder.failed, encoder.alive)


async def complete(run: Run[E], encoder: Encoder[E]) -> Response:
    """The whole reply, when it is there."""
    await run(encoder.add)
    return json_response(encoder.whole(), encoder.headers)


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), headers=dict(headers or {}), media_type="application/json")
