"""Exceptions to error answers: OpenAI's `{"error": {"message", "type", "param", "code"}}`, or Anthropic's on its paths.

One table maps exception classes, never messages. What is not in it is a 500 that says nothing of the inside and is
logged with its request id. Streams use the same table: after the first byte an error is one event, in the
words of its API.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controllers.judging.judge import CannotJudge
from controllers.judging.scoring import NothingToJudgeBy
from controllers.policy.controls import PolicyError
from models.engines.base import EngineBusy, EngineDead, EngineRestarting, InvalidRequest, PromptTooLong
from server.admission import Refusal

log = logging.getLogger(__name__)
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

ANTHROPIC_PATHS = "/v1/messages"
ANTHROPIC_TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)
MESSAGE_CHARACTERS = 500
PATH_CHARACTERS = 200


class ApiError(Exception):
    """An answer with an error: HTTP status and the four fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers
        self.details = details

    def fields(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        return orjson.dumps({"error": self.fields()})

    def anthropic_body(self, request_id: str) -> bytes:
        """The error as Anthropic's API writes it. It has no field for what was wrong; ours stands beside."""
        kind = ANTHROPIC_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        fields: dict[str, Any] = {"type": kind, "message": self.message, "param": self.param, "code": self.code}
        if self.details:
            fields["details"] = self.details
        return orjson.dumps({"type": "error", "error": fields, "request_id": request_id})

    def response(self) -> "ErrorAnswer":
        return ErrorAnswer(self)


def speaks_anthropic(scope: Scope) -> bool:
    """Whether the client is one of Anthropic's API: by the path, or by the headers that only such clients send."""
    names = {name for name, _ in scope["headers"]}
    return (
        scope["path"].startswith(ANTHROPIC_PATHS)
        or b"anthropic-version" in names
        or (b"x-api-key" in names and b"authorization" not in names and scope["path"].startswith("/v1/models"))
    )


class ErrorAnswer(Response):
    """An error in the words of the API whose path was asked."""

    def __init__(self, error: ApiError) -> None:
        self.error = error
        super().__init__(error.body(), error.status, dict(error.headers or {}), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if speaks_anthropic(scope):
            self.body = self.error.anthropic_body(scope.get("state", {}).get("request_id", ""))
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


class InvalidBody(Exception):
    """What a client sent does not have the form that it must have."""

    def __init__(self, errors: list[Any]) -> None:
        super().__init__(errors)
        self.errors = errors


def validated(validate: Callable[[T], Model], sent: T) -> Model:
    """`sent` as a model. Pydantic's `ValidationError` is the client's fault here alone: elsewhere it is one of ours."""
    try:
        return validate(sent)
    except ValidationError as error:
        raise InvalidBody(error.errors(include_url=False, include_context=False, include_input=False)) from error


class ServerStopping(Exception):
    """The server stopped before the reply was complete."""


class NotJudged(Exception):
    """The server was told to stop before this item was judged."""

    def __init__(self) -> None:
        super().__init__("the server is stopping: this item was not judged")


def model_not_found(name: str, known: Iterable[str]) -> ApiError:
    message = (
        f"the model {shortened(name)!r} does not exist; there is {shortened(', '.join(known), MESSAGE_CHARACTERS)}"
    )
    return ApiError(404, message, param="model", code="model_not_found")


def not_a_judge(name: str) -> ApiError:
    return ApiError(400, f"the model {shortened(name)!r} is not a judge", param="model", code="not_a_judge")


def no_judge() -> ApiError:
    return ApiError(404, "this server has no judge", param="model", code="model_not_found")


def api_error(exc: Exception) -> ApiError:
    """The answer to any exception, by its class."""
    for cls in type(exc).__mro__:
        if (answer := _ANSWERS.get(cls)) is not None:
            return answer(exc)
    return ApiError(500, "the server failed on this request", type="server_error", code="internal_error")


def reported(exc: Exception, request_id: str) -> ApiError:
    """`api_error`, and a log entry with the traceback where the exception was not foreseen.

    The log's formatter leaves out what the exception says, since that may quote the request.
    """
    answer = api_error(exc)
    if answer.code == "internal_error":
        log.error("request %s failed", request_id or "-", exc_info=exc)
    return answer


def shortened(text: str, limit: int = PATH_CHARACTERS) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _as_is(exc: ApiError) -> ApiError:
    return exc


def _prompt_too_long(exc: PromptTooLong) -> ApiError:
    return ApiError(400, str(exc), param=exc.field, code="context_length_exceeded")


def _refused(exc: InvalidRequest | PolicyError) -> ApiError:
    return ApiError(400, shortened(str(exc), MESSAGE_CHARACTERS), param=exc.field, code="invalid_value")


def _engine_dead(exc: EngineDead) -> ApiError:
    return ApiError(503, "the model's engine is down", type="server_error", code="engine_dead")


def _engine_restarting(exc: EngineRestarting) -> ApiError:
    headers = {"retry-after": str(exc.retry_after)}
    message = "the model's engine is being started again"
    return ApiError(503, message, type="server_error", code="engine_restarting", headers=headers)


def _refusal(exc: Refusal) -> ApiError:
    """A key's own limit is a 429, a full route a 503."""
    headers = {"retry-after": str(exc.retry_after)}
    if exc.cause in ("key_requests", "key_tokens"):
        return ApiError(429, str(exc), type="rate_limit_error", code="rate_limit_exceeded", headers=headers)
    message = f"too much is asked of this model: {exc}"
    return ApiError(503, message, type="server_error", code="overloaded", headers=headers)


def _engine_busy(exc: EngineBusy) -> ApiError:
    return ApiError(
        503, "the model's queue is full", type="server_error", code="overloaded", headers={"retry-after": "1"}
    )


def _stopping(exc: ServerStopping) -> ApiError:
    message = "the server stopped before the reply was complete"
    return ApiError(503, message, type="server_error", code="server_stopping", headers={"retry-after": "1"})


def _gone(exc: ClientDisconnect) -> ApiError:
    return ApiError(499, "the client closed the connection", code="client_closed")


def _unjudgeable(exc: NothingToJudgeBy) -> ApiError:
    return ApiError(400, str(exc), param=exc.field, code="nothing_to_judge_by")


def _cannot_judge(exc: CannotJudge) -> ApiError:
    return ApiError(400, str(exc), param=exc.field, code="cannot_judge")


def _not_judged(exc: NotJudged) -> ApiError:
    return ApiError(503, str(exc), type="server_error", code="not_judged")


_HTTP_CODES: Mapping[int, str] = MappingProxyType(
    {
        401: "invalid_api_key",
        404: "not_found",
        405: "method_not_allowed",
        408: "request_timeout",
        413: "request_too_large",
    }
)


def _http(exc: HTTPException) -> ApiError:
    if exc.status_code >= 500:
        return ApiError(exc.status_code, "the server failed on this request", type="server_error", code="server_error")
    message = shortened(str(exc.detail), MESSAGE_CHARACTERS)
    return ApiError(exc.status_code, message, code=_HTTP_CODES.get(exc.status_code), headers=exc.headers)


def _invalid_body(exc: InvalidBody) -> ApiError:
    """The first error, or, where its field is a union, the error of the branch that got deepest."""
    first = _fields(exc.errors[0])
    inside = [error for error in exc.errors if _fields(error)[: len(first)] == first]
    error = max(inside, key=lambda error: len(_fields(error)))
    path = shortened(".".join(_fields(error)))
    message = "unknown field" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    message = shortened(message, MESSAGE_CHARACTERS)
    code = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    return ApiError(
        400,
        f"{path}: {message}" if path else message,
        param=path or None,
        code=code.get(error["type"], "invalid_value"),
    )


UNKNOWN_TYPE = "type"
"""Pydantic's word for a member of a union whose `type` says that it is none: it names the member, not the field."""
_TYPE_NAMES = frozenset({"str", "int", "float", "bool", "none", "dict", "list", "tuple", "bytes", "nullable", "any"})


def _fields(error: Any) -> tuple[str, ...]:
    """Where the error is, without the names of union branches that pydantic writes between the fields.

    Fields on this wire are snake_case; a branch is a type's name or has capitals or brackets. The last part of an
    unknown or a missing field is a field whatever it looks like.
    """
    *parents, last = error["loc"] or ("",)
    named = [str(part) for part in parents if isinstance(part, int) or _is_field(part)]
    if error["type"] in ("extra_forbidden", "missing") or isinstance(last, int) or _is_field(last):
        named.append(str(last))
    if error["type"] == UNKNOWN_TYPE:
        named.append("type")
    return tuple(part for part in named if part)


def _is_field(part: str) -> bool:
    return part not in _TYPE_NAMES and re.fullmatch(r"[a-z0-9_]+", part) is not None


_ANSWERS: Mapping[type[Exception], Callable[[Any], ApiError]] = MappingProxyType(
    {
        ApiError: _as_is,
        PromptTooLong: _prompt_too_long,
        InvalidRequest: _refused,
        PolicyError: _refused,
        EngineDead: _engine_dead,
        EngineRestarting: _engine_restarting,
        EngineBusy: _engine_busy,
        Refusal: _refusal,
        NothingToJudgeBy: _unjudgeable,
        CannotJudge: _cannot_judge,
        NotJudged: _not_judged,
        ServerStopping: _stopping,
        InvalidBody: _invalid_body,
        HTTPException: _http,
        ClientDisconnect: _gone,
    }
)
