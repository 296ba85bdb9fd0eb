"""Replies whose API tells of them in named events: the same frames make the stream and the whole."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from fastapi import Response

from controllers.generation.events import Decision, Event
from server.apis.shared.generation import Job, decision_headers
from server.apis.shared.usage import UsageCounter


class EventEncoder(Protocol):
    """Takes the events of one reply: `frames` is what a stream sends for each, `body` the reply as it stands."""

    body: dict[str, Any]

    def frames(self, event: Event) -> bytes: ...


async def stream(
    job: Job, frames: EventEncoder, tally: UsageCounter, headers: dict[str, str]
) -> AsyncGenerator[bytes, None]:
    """What goes out as it comes; `headers` is filled with the first."""
    async with aclosing(job.events(tally)) as events:
        async for _, event in events:
            if isinstance(event, Decision):
                headers.update(decision_headers(event))
            if frame := frames.frames(event):
                yield frame


async def complete(events: AsyncGenerator[bytes, None], frames: EventEncoder, headers: Mapping[str, str]) -> Response:
    """The whole reply, when it is there."""
    async with aclosing(events):
        async for _ in events:
            pass
    return json_response(frames.body, headers)


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), headers=dict(headers or {}), media_type="application/json")
