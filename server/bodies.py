"""Request bodies: bytes to a validated model, in one pass."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from server.runtime import runtime_of

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, model: type[Model]) -> Model:
    """The request's JSON body as `model`. Raises pydantic's `ValidationError`, also for bytes that are not JSON."""
    body = await request.body()
    if runtime_of(request).config.logging.prompts:
        request.scope["state"]["body"] = body
    return model.model_validate_json(body)
