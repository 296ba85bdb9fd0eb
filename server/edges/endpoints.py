"""Routes to handlers, and request bodies: bytes to a validated model, in one pass, and to the handler that wants it."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from controllers.concurrency import off_loop
from server.assemble import runtime_of
from server.edges.errors import ApiError, shortened, validated

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]
BodyHandler = Callable[[Request, Model], Awaitable[Response]]
BODY = "body_model"


class Endpoint(Route):
    """One path. What its handler raises travels on to the edge of the request: there is no other layer between."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"allow": ", ".join(sorted(self.methods or ()))})
        scope["route"] = self
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Routes(list[Endpoint]):
    """The endpoints of one API, all below `prefix`. Its methods decorate handlers."""

    def __init__(self, prefix: str = "", *, include_in_schema: bool = True) -> None:
        super().__init__()
        self._prefix = prefix
        self._include_in_schema = include_in_schema

    def get(self, path: str) -> Callable[[Handler], Handler]:
        return partial(self._add, "GET", path)

    def post(self, path: str) -> Callable[[Handler], Handler]:
        return partial(self._add, "POST", path)

    def delete(self, path: str) -> Callable[[Handler], Handler]:
        return partial(self._add, "DELETE", path)

    def _add(self, method: str, path: str, handler: Handler) -> Handler:
        listed = self._include_in_schema
        self.append(Endpoint(self._prefix + path, handler, methods=[method], include_in_schema=listed))
        return handler


async def read_body(request: Request, model: type[Model]) -> Model:
    """The request's JSON body as `model`. Raises `InvalidBody`, also for bytes that are not JSON. A body that is packed
    is refused: what it unpacks to has no bound."""
    if (packed := request.headers.get("content-encoding", "identity")) != "identity":
        message = f"content-encoding: a body is sent as it is, not as {shortened(packed)}"
        raise ApiError(415, message, param="content-encoding", code="unsupported_media_type")
    body = await request.body()
    if runtime_of(request).config.logging.prompts:
        request.scope["state"]["body"] = body
    return await off_loop(len(body), partial(validated, partial(_read, model), body))


def _read(model: type[Model], body: bytes) -> Model:
    """The body as `model`. A null says nothing: one that no field takes is as if it were not there."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        if not any(each["input"] is None for each in wrong):
            raise
        sent = from_json(body)
        for each in wrong:
            _drop_null(sent, each["loc"])
        return model.model_validate_json(to_json(sent))


def _drop_null(value: Any, path: Iterable[Any]) -> None:
    """Takes the null at `path` out of the object that holds it. Parts that lead nowhere name branches of a union."""
    holder: Any = None
    key: Any = None
    for part in path:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            holder, key, value = value, part, value[part]
    if value is None and isinstance(holder, dict):
        del holder[key]


def json_body(model: type[Model]) -> Callable[[BodyHandler[Model]], Handler]:
    """The handler of one that takes a body. `body_of` finds the model again, for the OpenAPI document."""

    def handler_of(handler: BodyHandler[Model]) -> Handler:
        async def with_body(request: Request) -> Response:
            return await handler(request, await read_body(request, model))

        with_body.__name__ = getattr(handler, "__name__", "handler")
        with_body.__doc__ = handler.__doc__
        setattr(with_body, BODY, model)
        return with_body

    return handler_of


def body_of(handler: Any) -> type[BaseModel] | None:
    """The model of the body that a handler takes."""
    return getattr(handler, BODY, None)
