"""Refuses request bodies that are too large, by their announced length and by what really arrives."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edges.errors import api_error


class BodyLimit:
    """Plain ASGI. What arrives without an announced length is counted while it is read."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        # FastAPI passes an HTTPException on, while it turns any other error in reading a body into a 400.
        self.too_large = HTTPException(413, f"the request body is larger than {max_bytes} bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            return await api_error(self.too_large).response()(scope, receive, send)
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.max_bytes:
                raise self.too_large
            return message

        return await self.app(scope, counted, send)
