"""`POST /v1/chat/completions`."""

from starlette.requests import Request
from starlette.responses import Response

from server.apis.chat.encoder import ChatEncoder
from server.apis.chat.schema import ChatRequest
from server.apis.shared.generation import prepare, respond
from server.edges.endpoints import Routes, json_body

routes = Routes()


@routes.post("/v1/chat/completions")
@json_body(ChatRequest)
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    generation = prepare(body.generation_request(), request)
    return await respond(request, generation.run, ChatEncoder(generation, body), stream=bool(body.stream))
