"""`POST /v1/reasoning/{request_id}/answer` and `/cancel`: what a client may still ask of a request that runs.

The id is the request's `x-request-id`, which the client may choose, or the id of the reply. Only the key that made a
request finds it.
"""

from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.assemble import runtime_of
from server.edges.endpoints import Routes
from server.edges.errors import ApiError

routes = Routes("/v1/reasoning")


@routes.post("/{request_id}/answer")
async def answer(request: Request) -> Response:
    """Ends the thinking of a running request; its answer follows at once."""
    return await _ask(request, "answer")


@routes.post("/{request_id}/cancel")
async def cancel(request: Request) -> Response:
    """Ends a running request with what it has said so far."""
    return await _ask(request, "cancel")


async def _ask(request: Request, wish: Literal["answer", "cancel"]) -> Response:
    request_id, key_name = request.path_params["request_id"], request.scope["state"].get("key_name")
    runtime = runtime_of(request)
    refusal = runtime.running.ask(key_name, request_id, wish)
    if refusal is None:
        refusal = await runtime.responses.ask(key_name, request_id, wish)
    if refusal is None:
        raise ApiError(404, "no request with this id is running", param="request_id", code="not_found")
    if refusal:
        raise ApiError(409, refusal, param="request_id", code="cannot_answer_now")
    return JSONResponse({"id": request_id, "object": "reasoning.request", "asked": wish})
