"""`POST /v1/chat/completions`: from a body to a policy, a controller, and its chunks on the wire."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, get_args

import orjson
from fastapi import APIRouter, Request, Response

from controllers.generation.events import Decision, Event, Finished, Progress, Working
from models.engines.base import PositionLogprobs
from models.formats.chunks import Chunk, Kind
from server.apis.chat.encoder import ChatEncoder, finish_reason, logprob_items, stop_reason, tool_call
from server.apis.chat.schema import ChatRequest
from server.apis.shared.generation import Job, decision_headers, prepare
from server.apis.shared.sampling_fields import StreamOptions
from server.apis.shared.usage import UsageCounter
from server.edges.json_body import json_body
from server.edges.sse import DONE, EventStream, while_connected

router = APIRouter()


@router.post("/v1/chat/completions")
@json_body(ChatRequest)
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    job = prepare(body.generation_request(), request)
    if body.stream:
        headers: dict[str, str] = {}
        return EventStream(stream(job, body, headers), headers)
    return await while_connected(request.receive, complete(job, body))


async def stream(job: Job, body: ChatRequest, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
    """SSE frames. The first holds the role, the decision and the first text together; `headers` is filled with it."""
    options = body.stream_options or StreamOptions()
    frames = ChatEncoder(
        job.reply_id,
        job.created,
        job.route,
        token_ids=bool(body.return_token_ids),
        logprobs=bool(body.logprobs),
    )
    tally = UsageCounter()
    waiting: dict[int, bytes] = {}  # first frames of choices that have decided and not yet spoken
    async with aclosing(job.events(tally)) as events:
        async for index, event in events:
            if isinstance(event, Decision):
                headers.update(decision_headers(event))
                waiting[index] = frames.first(index, event)
                continue
            if isinstance(event, Working):
                yield frames.working(index, event)
                continue
            if isinstance(event, Finished):
                frame = frames.last(index, event)
            elif isinstance(event, Progress):
                frame = frames.progress(index, event)
            elif event.kind in job.hidden and not body.return_token_ids:
                if index in waiting:  # the client is told that there is thinking, though not what
                    yield waiting.pop(index)
                continue
            elif event.kind in job.hidden:
                frame = frames.hidden(index, event, tally.usage() if options.continuous_usage_stats else None)
            elif not (event.text or event.call or event.logprobs or event.forced or body.return_token_ids):
                continue
            else:
                frame = frames.chunk(index, event, tally.usage() if options.continuous_usage_stats else None)
            yield waiting.pop(index) + frame if waiting and index in waiting else frame
    if options.include_usage:
        yield frames.usage(tally.usage())
    yield DONE


async def complete(job: Job, body: ChatRequest) -> Response:
    """The whole reply as one JSON answer."""
    choices = [_Choice(job.hidden) for _ in range(job.asked.n)]
    tally = UsageCounter()
    async with aclosing(job.events(tally)) as events:
        async for index, event in events:
            choices[index].add(event)
    ends = [choice.end for choice in choices]
    reply = {
        "id": job.reply_id,
        "object": "chat.completion",
        "created": job.created,
        "model": job.route.name,
        "choices": [{"index": i, **choice.as_json(job, body)} for i, choice in enumerate(choices)],
        "usage": tally.usage(),
        "reasond": ends[0].record,
    }
    if body.return_token_ids:
        reply["prompt_token_ids"] = list(ends[0].decision.prompt)
    return Response(orjson.dumps(reply), headers=decision_headers(ends[0].decision), media_type="application/json")


class _Choice:
    """One choice of a reply that is not streamed, while it grows."""

    def __init__(self, hidden: Sequence[Kind]) -> None:
        self._hidden = hidden
        self._texts: dict[Kind, list[str]] = {kind: [] for kind in get_args(Kind)}
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[PositionLogprobs | int] = []  # the id alone for a token that the server wrote
        self._token_ids: list[int] = []
        self._forced: list[int] = []
        self._target: list[int] = []
        self._end: Finished | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Chunk):
            if event.call is not None and event.call.name is not None:
                self._calls.append(tool_call(event.call, event.text))
            elif event.call is not None:
                self._calls[event.call.number]["function"]["arguments"] += event.text
            else:
                self._texts[event.kind].append(event.text)
            positions = range(len(self._token_ids), len(self._token_ids) + len(event.token_ids))
            if event.forced:
                self._forced.extend(positions)
            if event.target:
                self._target.extend(positions)
            if event.kind not in self._hidden:  # they spell the text
                self._logprobs.extend(event.logprobs or (event.token_ids if event.forced else ()))
            self._token_ids.extend(event.token_ids)
        elif isinstance(event, Finished):
            self._end = event

    @property
    def end(self) -> Finished:
        if self._end is None:
            raise RuntimeError("the controller ended without saying so")
        return self._end

    def as_json(self, job: Job, body: ChatRequest) -> dict[str, Any]:
        items = logprob_items(self._logprobs, job.route.engine.tokenizer) if body.logprobs else None
        choice = {
            "message": self._message(job),
            "logprobs": {"content": items} if items else None,
            "finish_reason": finish_reason(self.end),
            "stop_reason": stop_reason(self.end),
            "reasond": self.end.record,
        }
        if not body.return_token_ids:
            return choice
        marked = {"token_ids": self._token_ids, "forced": self._forced}
        return {**choice, **marked, **({"target": self._target} if job.route.target else {})}

    def _message(self, job: Job) -> dict[str, Any]:
        content = "".join(self._texts["answer"])
        message: dict[str, Any] = {"role": "assistant", "content": None if self._calls and not content else content}
        reasoning = "".join(self._texts["reasoning"])
        if reasoning and "reasoning" not in job.hidden:
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        if self._calls:
            message["tool_calls"] = self._calls
        return message
