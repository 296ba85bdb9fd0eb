"""The outermost edge of a request: its id, and the answer when everything inside has failed.

Plain ASGI. `send` is wrapped once, by a function that looks at each message's type and hands on the awaitable, so a
stream of many small messages pays no extra coroutine.
"""

import logging
import re
import uuid
from collections.abc import Awaitable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import reported

log = logging.getLogger(__name__)

VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestScope:
    """Puts `request_id` into the scope's state and the answer's headers, and answers what no handler did."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = choose_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as exc:
            if started:
                log.error("request %s failed after its answer had begun", request_id)
                raise
            await reported(exc, request_id).response()(scope, receive, send_with_id)


def choose_id(offered: str | None) -> str:
    """The client's id if it is one that can stand in a log and a header, else a new one."""
    return offered if offered and VALID_ID.fullmatch(offered) else uuid.uuid4().hex
