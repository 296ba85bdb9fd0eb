"""Anthropic's `/v1/messages`: a message, streamed or not, and the count of its input."""

from uuid import uuid4

from fastapi import APIRouter, Request, Response

from controllers.prompt import prompt_tokens
from server.bodies import takes
from server.framed import complete, json_response, stream
from server.job import prepare
from server.message_frames import MessageFrames
from server.sse import EventStream, while_connected
from server.usage import Tally
from server.wire.messages import CountBody, CountRequest, MessagesBody, MessagesRequest

router = APIRouter(prefix="/v1/messages")


@router.post("")
@takes(MessagesRequest)
async def create(request: Request, body: MessagesBody) -> Response:
    job = prepare(body.asked(), request, f"msg_{uuid4().hex}")
    tally = Tally()
    frames = MessageFrames(job, request.scope["state"]["request_id"], tally)
    headers: dict[str, str] = {}
    events = stream(job, frames, tally, headers)
    if body.stream:
        return EventStream(events, headers, frames.failed)
    return await while_connected(request.receive, complete(events, frames, headers))


@router.post("/count_tokens")
@takes(CountRequest)
async def count(request: Request, body: CountBody) -> Response:
    """How many tokens the input of such a request has."""
    job = prepare(body.asked(), request)
    tokens = prompt_tokens(job.route, job.conversation, job.policy)
    return json_response({"input_tokens": tokens})
