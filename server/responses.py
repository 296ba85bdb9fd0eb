"""`/v1/responses`: create (streamed, at once, or in the background), retrieve, cancel, delete, count."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from controllers.prompt import prompt_tokens
from server.bodies import takes
from server.errors import ApiError, api_error, reported
from server.framed import complete, json_response, stream
from server.job import prepare
from server.response_frames import ResponseFrames
from server.response_store import ResponseStore, Stored
from server.runtime import runtime_of
from server.sse import EventStream, while_connected
from server.usage import Tally
from server.wire.responses import InputItem, ResponsesBody, ResponsesRequest, Turn, turns

router = APIRouter(prefix="/v1/responses")
ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


@router.post("")
@takes(ResponsesRequest)
async def create(request: Request, body: ResponsesBody) -> Response:
    store, key_name = _store(request)
    earlier = _earlier(store, key_name, body.previous_response_id)
    job = prepare(body.asked(earlier), request, f"resp_{uuid4().hex}")
    tally = Tally()
    frames = ResponseFrames(job, body, tally)
    stored = Stored(frames.body, [*earlier, *body.turns()], body.input_items(), job.interrupt)
    keeping = None if body.store is False else _kept(store, key_name, stored, frames)
    headers: dict[str, str] = {}
    events = stream(job, frames, tally, headers, keeping)
    if body.stream:
        return EventStream(events, headers, frames.failed)
    if body.background:
        frames.body["status"] = "queued"
        store.put(key_name, stored)
        _in_background(request, complete(events, frames, headers))
        return json_response(frames.body)
    return await while_connected(request.receive, complete(events, frames, headers))


@router.get("/{response_id}")
async def retrieve(response_id: str, request: Request) -> Response:
    if request.query_params.get("stream", "false") != "false":
        raise ApiError(400, "stream: a kept response is told at once", param="stream", code="invalid_value")
    return json_response(_found(response_id, request).body)


@router.get("/{response_id}/input_items")
async def input_items(response_id: str, request: Request) -> Response:
    items = _found(response_id, request).items
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
    return json_response({"object": "list", "data": items, "has_more": False, **ends})


@router.post("/{response_id}/cancel")
async def cancel(response_id: str, request: Request) -> Response:
    """Ends a response that runs, with what it has said so far."""
    stored = _found(response_id, request)
    if stored.interrupt is None:
        raise ApiError(409, "this response has ended", param="response_id", code="cannot_cancel")
    stored.interrupt.ask("cancel")
    stored.body["status"] = "cancelled"
    return json_response(stored.body)


@router.delete("/{response_id}")
async def delete(response_id: str, request: Request) -> Response:
    """Forgets a response. One that runs goes on and is not kept."""
    _found(response_id, request)
    store, key_name = _store(request)
    store.delete(key_name, response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@router.post("/input_tokens")
@takes(ResponsesRequest)
async def count(request: Request, body: ResponsesBody) -> Response:
    """How many tokens the input of such a request has."""
    store, key_name = _store(request)
    job = prepare(body.asked(_earlier(store, key_name, body.previous_response_id)), request)
    tokens = prompt_tokens(job.route, job.conversation, job.policy)
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})


def _store(request: Request) -> tuple[ResponseStore, str | None]:
    return runtime_of(request).responses, request.scope["state"].get("key_name")


def _found(response_id: str, request: Request) -> Stored:
    store, key_name = _store(request)
    if (stored := store.find(key_name, response_id)) is None:
        raise ApiError(404, "there is no such response", param="response_id", code="not_found")
    return stored


def _earlier(store: ResponseStore, key_name: str | None, response_id: str | None) -> list[Turn]:
    """The turns of an earlier response and of all before it. Raises `ApiError` where it is not kept, or runs."""
    if response_id is None:
        return []
    stored, field = store.find(key_name, response_id), "previous_response_id"
    if stored is None:
        raise ApiError(404, f"{field}: there is no such response", param=field, code="previous_response_not_found")
    if stored.interrupt is not None:
        raise ApiError(409, f"{field}: this response has not ended", param=field, code="previous_response_runs")
    return [*stored.turns, *turns(ITEMS.validate_python(stored.body["output"]))]


@contextmanager
def _kept(store: ResponseStore, key_name: str | None, stored: Stored, frames: ResponseFrames) -> Iterator[None]:
    """Keeps the response as it stands when it begins and when it ends. One whose client has left is cancelled."""
    stored.body["status"] = "in_progress"
    store.put(key_name, stored)
    try:
        yield
    except Exception as error:
        frames.fail(api_error(error))
        raise
    finally:
        stored.interrupt = None
        if stored.body["status"] == "in_progress":
            stored.body["status"] = "cancelled"
        if store.find(key_name, stored.body["id"]) is stored:
            store.put(key_name, stored)


def _in_background(request: Request, work: Coroutine[Any, Any, Response]) -> None:
    """Nobody waits for this work: its failure is told in the response, and logged where it was not foreseen."""
    request_id = request.scope["state"]["request_id"]

    async def unattended() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the response tells it to whoever asks
            reported(error, request_id)

    background = runtime_of(request).background
    task = asyncio.create_task(unattended())
    background.add(task)
    task.add_done_callback(background.discard)
