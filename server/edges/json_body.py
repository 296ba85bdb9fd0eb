"""Request bodies: bytes to a validated model, in one pass, and to the handler that wants it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from server.assemble import runtime_of

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request, Model], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


async def read_body(request: Request, model: type[Model]) -> Model:
    """The request's JSON body as `model`. Raises pydantic's `ValidationError`, also for bytes that are not JSON."""
    body = await request.body()
    if runtime_of(request).config.logging.prompts:
        request.scope["state"]["body"] = body
    return model.model_validate_json(body)


def json_body(model: type[Model]) -> Callable[[Handler[Model]], Endpoint]:
    """The endpoint of a handler that takes a body. `body_of` finds the model again, for the OpenAPI document."""

    def endpoint_of(handler: Handler[Model]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await handler(request, await read_body(request, model))

        endpoint.__name__ = getattr(handler, "__name__", "endpoint")
        endpoint.__doc__ = handler.__doc__
        setattr(endpoint, BODY, model)
        return endpoint

    return endpoint_of


def body_of(endpoint: Any) -> type[BaseModel] | None:
    """The model of the body that an endpoint takes."""
    return getattr(endpoint, BODY, None)


BODY = "body_model"
