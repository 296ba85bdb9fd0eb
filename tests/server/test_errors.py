"""Exceptions to answers: the class decides, the message says which field, and nothing of the inside gets out."""

import json
import logging
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from controllers.policy.controls import PolicyError
from models.engines.base import EngineBusy, EngineDead, EngineError, InvalidRequest, PromptTooLong
from server.app import Application
from server.edges.endpoints import Routes, json_body
from server.edges.errors import ApiError, InvalidBody, api_error, model_not_found, reported, validated
from server.edges.sse import ClientGone

SECRET = "postgres://user:secret@inside"


class Text(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str | list[Text]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mode: Literal["think", "no_think"] | None = None


class ChatBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = None
    stop: str | list[str] | None = None
    reasond: Options | None = None

    @field_validator("temperature")
    @classmethod
    def _cool(cls, value: float | None) -> float | None:
        if value is not None and value > 2:
            raise ValueError("at most 2")
        return value


def refuse(**fields: object) -> ApiError:
    with pytest.raises(InvalidBody) as refusal:
        validated(ChatBody.model_validate, {"messages": [{"role": "user", "content": "hi"}], **fields})
    return api_error(refusal.value)


CASES = [
    (PromptTooLong(600, 512), 400, "messages", "context_length_exceeded"),
    (InvalidRequest("no such adapter", "model"), 400, "model", "invalid_value"),
    (PolicyError("think and enable_thinking contradict", "think"), 400, "think", "invalid_value"),
    (EngineDead(SECRET), 503, None, "engine_dead"),
    (EngineBusy(SECRET), 503, None, "overloaded"),
    (EngineError(SECRET), 500, None, "internal_error"),
    (RuntimeError(SECRET), 500, None, "internal_error"),
    (HTTPException(404), 404, None, "not_found"),
    (HTTPException(405), 405, None, "method_not_allowed"),
    (HTTPException(413), 413, None, "request_too_large"),
    (HTTPException(502, SECRET), 502, None, "server_error"),
    (ClientDisconnect(), 499, None, "client_closed"),
    (ClientGone(), 499, None, "client_closed"),
    (model_not_found("gpt", ["demo"]), 404, "model", "model_not_found"),
]


@pytest.mark.parametrize("exc,status,param,code", CASES, ids=lambda value: type(value).__name__)
def test_the_class_of_an_exception_decides_the_answer(exc, status, param, code):
    answer = api_error(exc)
    assert (answer.status, answer.param, answer.code) == (status, param, code)
    assert SECRET not in answer.message


def test_the_body_is_openais_error_object():
    assert json.loads(reported(PolicyError("no", "think"), "").body()) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "think", "code": "invalid_value"}
    }


def test_a_subclass_is_answered_like_its_nearest_known_parent():
    class Closer(PromptTooLong):
        pass

    assert api_error(Closer(2, 1)).code == "context_length_exceeded"


def test_an_unforeseen_exception_is_logged_with_its_request_and_traceback(caplog):
    with caplog.at_level(logging.ERROR, logger="server.edges.errors"):
        reported(RuntimeError(SECRET), "req-7")
        reported(PolicyError("no", "think"), "req-8")
    (record,) = caplog.records
    assert "req-7" in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize(
    "fields,param,code",
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
            "missing_required_parameter",
        ),
        ({"temperature": 5}, "temperature", "invalid_value"),
        ({"stop": ["a", 5]}, "stop.1", "invalid_value"),
        ({"reasond": {"mode": "ponder"}}, "reasond.mode", "invalid_value"),
        ({"reasond": {"depth": 3}}, "reasond.depth", "unknown_parameter"),
        ({"maxTokens": 3}, "maxTokens", "unknown_parameter"),
    ],
)
def test_an_invalid_body_names_the_dotted_field_without_pydantics_union_branches(fields, param, code):
    answer = refuse(**fields)
    assert (answer.status, answer.param, answer.code) == (400, param, code)
    assert answer.message.startswith(f"{param}: ")


def test_a_validators_own_message_is_kept_as_it_is():
    assert refuse(temperature=5).message == "temperature: at most 2"


def test_a_huge_input_is_never_echoed():
    for answer in (refuse(temperature="9" * 100_000), refuse(**{"x" * 100_000: 1})):
        assert len(answer.body()) < 2000


def test_a_body_that_is_not_json_has_no_field_to_name():
    with pytest.raises(InvalidBody) as refusal:
        validated(ChatBody.model_validate_json, b"{")
    answer = api_error(refusal.value)
    assert (answer.status, answer.param) == (400, None)
    assert "JSON" in answer.message


def with_failing_routes(app: Application) -> Application:
    routes = Routes()

    @routes.get("/fails")
    async def fails(request: Request) -> Response:
        raise RuntimeError(SECRET)

    @routes.get("/dead")
    async def dead(request: Request) -> Response:
        raise EngineDead(SECRET)

    @routes.get("/invalid")
    async def invalid(request: Request) -> Response:
        return Response(ChatBody.model_validate({}).model_dump_json())  # a fault of ours, not of the client's

    @routes.post("/chat")
    @json_body(ChatBody)
    async def chat(request: Request, body: ChatBody) -> Response:
        return Response()

    app.router.routes += routes
    return app


@pytest.mark.anyio
@pytest.mark.parametrize(
    "method,path,status,code",
    [
        ("GET", "/fails", 500, "internal_error"),
        ("GET", "/dead", 503, "engine_dead"),
        ("GET", "/invalid", 500, "internal_error"),
        ("GET", "/none", 404, "not_found"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("POST", "/chat", 400, "missing_required_parameter"),
    ],
)
async def test_every_failure_is_answered_in_openais_shape(make_app, make_client, caplog, method, path, status, code):
    async with make_client(with_failing_routes(make_app())) as client:
        answer = await client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert SECRET not in answer.text
    request_id = answer.headers["x-request-id"]
    assert (f"request {request_id} failed" in caplog.text) == (status == 500)
