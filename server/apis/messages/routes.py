"""Anthropic's `/v1/messages`: a message, streamed or not, and the count of its input."""

from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from controllers.generation.prompt import prompt_tokens
from server.apis.messages.encoder import MessageEncoder
from server.apis.messages.schema import CountRequest, MessagesRequest
from server.apis.shared.generation import json_response, prepare, respond
from server.assemble import runtime_of
from server.edges.endpoints import Routes, json_body

routes = Routes("/v1/messages")


@routes.post("")
@json_body(MessagesRequest)
async def create(request: Request, body: MessagesRequest) -> Response:
    seal = runtime_of(request).seal
    generation = prepare(body.generation_request(seal.unseal), request, f"msg_{uuid4().hex}")
    encoder = MessageEncoder(generation, body, seal, request.scope["state"]["request_id"])
    return await respond(request, generation.run, encoder, stream=bool(body.stream))


@routes.post("/count_tokens")
@json_body(CountRequest)
async def count(request: Request, body: CountRequest) -> Response:
    """How many tokens the input of such a request has."""
    generation = prepare(body.generation_request(runtime_of(request).seal.unseal), request)
    tokens = await prompt_tokens(generation.route, generation.conversation, generation.policy)
    return json_response({"input_tokens": tokens})
