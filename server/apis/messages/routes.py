"""Anthropic's `/v1/messages`: a message, streamed or not, and the count of its input."""

from uuid import uuid4

from fastapi import APIRouter, Request, Response

from controllers.generation.prompt import prompt_tokens
from server.apis.messages.encoder import MessageEncoder
from server.apis.messages.schema import CountRequest, MessagesRequest
from server.apis.shared.generation import prepare
from server.apis.shared.stream import complete, json_response, stream
from server.apis.shared.usage import UsageCounter
from server.edges.json_body import json_body
from server.edges.sse import EventStream, while_connected

router = APIRouter(prefix="/v1/messages")


@router.post("")
@json_body(MessagesRequest)
async def create(request: Request, body: MessagesRequest) -> Response:
    job = prepare(body.generation_request(), request, f"msg_{uuid4().hex}")
    tally = UsageCounter()
    frames = MessageEncoder(job, request.scope["state"]["request_id"], tally)
    headers: dict[str, str] = {}
    events = stream(job, frames, tally, headers)
    if body.stream:
        return EventStream(events, headers, frames.failed)
    return await while_connected(request.receive, complete(events, frames, headers))


@router.post("/count_tokens")
@json_body(CountRequest)
async def count(request: Request, body: CountRequest) -> Response:
    """How many tokens the input of such a request has."""
    job = prepare(body.generation_request(), request)
    tokens = prompt_tokens(job.route, job.conversation, job.policy)
    return json_response({"input_tokens": tokens})
