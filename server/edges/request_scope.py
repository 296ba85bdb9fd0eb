"""The outermost edge of a request: its id, the limit on its body, the answer to what handlers raise, and the report.

Plain ASGI. `send` is wrapped once, by a function that looks at each message's type and hands on the awaitable, so a
stream of many small messages pays no extra coroutine.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config.load import MIB, ServerConfig
from server.edges.errors import ServerStopping, reported
from server.observability.request_observer import RequestObserver

log = logging.getLogger(__name__)

VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Report:
    """One request that is over, or the `background` work of one, which goes on behind its answer.

    `path` is that of the handler, so it holds nothing a client wrote; None where no handler was found. `status` is
    None where no answer had begun. `began` is Unix time. `watch` is there for requests to a route, `body` for those
    whose prompts are to be logged.
    """

    request_id: str
    method: str
    path: str | None
    headers: Headers
    status: int | None
    began: float
    seconds: float
    key_name: str | None
    watch: RequestObserver | None
    body: bytes | None
    background: bool


Observer = Callable[[Report], None]


class RequestScope:
    """Puts `request_id` into the scope's state and the answer's headers, and answers what handlers raise.

    A body that is too large or too slow is refused where a handler reads it, by its announced length or by what has
    arrived of it.
    """

    def __init__(self, app: ASGIApp, limits: ServerConfig, observers: Sequence[Observer] = ()) -> None:
        self.app = app
        self.limits = limits
        self.observers = tuple(observers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        request_id = choose_id(headers.get("x-request-id"))
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        began, clock = time.time(), time.perf_counter()
        status: int | None = None
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        arrived, whole = 0, False

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            return send(message)

        async def receive_within_limits() -> Message:
            nonlocal arrived, whole
            if whole:
                return await receive()
            message = await self._in_time(receive, time.perf_counter() - clock, arrived)
            whole = not message.get("more_body", False)
            arrived += len(message.get("body", b""))
            if max(arrived, size) > self.limits.max_body_bytes:
                raise HTTPException(413, f"the request body is larger than {self.limits.max_body_bytes} bytes")
            return message

        def report(background: bool = False) -> None:
            for observe in self.observers:
                observe(
                    Report(
                        request_id=request_id,
                        method=scope["method"],
                        path=getattr(scope.get("route"), "path", None),
                        headers=headers,
                        status=status,
                        began=began,
                        seconds=time.perf_counter() - clock,
                        key_name=state.get("key_name"),
                        watch=state.get("watch"),
                        body=state.get("body"),
                        background=background,
                    )
                )

        state["report"] = report
        try:
            await self.app(scope, receive_within_limits, send_with_id)
        except asyncio.CancelledError:
            if not _is_cut(scope):
                raise
            if status is None:
                await reported(ServerStopping(), request_id).response()(scope, receive, send_with_id)
        except Exception as exc:
            if status is not None:
                log.error("request %s failed after its answer had begun", request_id)
                raise
            await reported(exc, request_id).response()(scope, receive, send_with_id)
        finally:
            if "app" in scope and status is not None:
                scope["app"].state.runtime.metrics.responses[status // 100].inc()
            report()

    async def _in_time(self, receive: Receive, spent: float, arrived: int) -> Message:
        """The next piece of a body, of which so much has arrived in so many seconds."""
        try:
            async with asyncio.timeout(self.limits.body_seconds * (1 + arrived / MIB) - spent):
                return await receive()
        except TimeoutError:
            message = f"the request body comes more slowly than a MiB in {self.limits.body_seconds:g} seconds"
            raise HTTPException(408, message, headers={"connection": "close"}) from None


def choose_id(offered: str | None) -> str:
    """The client's id if it is one that can stand in a log and a header, else a new one."""
    return offered if offered and VALID_ID.fullmatch(offered) else uuid.uuid4().hex


def _is_cut(scope: Scope) -> bool:
    """Whether the server has ended what its drain left over: nothing else cancels a request's task."""
    return "app" in scope and scope["app"].state.runtime.cut.is_set()
