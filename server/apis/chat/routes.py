"""`POST /v1/chat/completions`."""

from fastapi import APIRouter, Request, Response

from server.apis.chat.encoder import ChatEncoder
from server.apis.chat.schema import ChatBody, ChatRequest
from server.apis.shared.generation import prepare, respond
from server.edges.json_body import json_body

router = APIRouter()


@router.post("/v1/chat/completions")
@json_body(ChatRequest)
async def chat_completions(request: Request, body: ChatBody) -> Response:
    generation = prepare(body.asked(), request)
    return await respond(request, generation.run, ChatEncoder(generation, body), stream=bool(body.stream))
