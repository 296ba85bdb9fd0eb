"""`/v1/responses`: create (streamed, at once, or in the background), retrieve, cancel, delete, count."""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from itertools import chain
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from controllers.generation.events import Event
from controllers.generation.prompt import prompt_tokens
from server.apis.responses.encoder import ResponseEncoder
from server.apis.responses.items import ITEMS, ItemReference, resolved, turns
from server.apis.responses.schema import ResponsesRequest, kept_items
from server.apis.shared.generation import Run, Take, json_response, prepare, respond
from server.apis.shared.messages import MessageReader, Turn
from server.assemble import runtime_of
from server.edges.endpoints import Routes, json_body
from server.edges.errors import ApiError, api_error, reported
from server.stores.responses import Stored
from server.stores.shared import Responses, runs

routes = Routes("/v1/responses")


@routes.post("")
@json_body(ResponsesRequest)
async def create(request: Request, body: ResponsesRequest) -> Response:
    store, key_name = _store(request)
    earlier = await _earlier(store, key_name, body.previous_response_id)
    items = await _resolved(store, key_name, body)
    generation = prepare(
        body.generation_request(items, earlier, runtime_of(request).seal.unseal), request, f"resp_{uuid4().hex}"
    )
    encoder = ResponseEncoder(generation, body)
    stored = Stored(encoder.whole(), earlier, kept_items(items), generation.interrupt, encoder.whole)
    kept = _kept(generation.run, store, key_name, stored, encoder)
    if body.background:
        _admit(request, stored, encoder)
        _in_background(request, kept(encoder.add))
        return json_response(stored.body)
    if body.stream:
        return await respond(request, generation.run if body.store is False else kept, encoder, stream=True)
    answer = await respond(request, generation.run, encoder, stream=False)
    if body.store is not False:
        stored.end()
        store.put(key_name, stored)
    return answer


@routes.get("/{response_id}")
async def retrieve(request: Request) -> Response:
    if request.query_params.get("stream", "false") != "false":
        raise ApiError(400, "stream: a kept response is told at once", param="stream", code="invalid_value")
    return json_response((await _found(request)).read())


@routes.get("/{response_id}/input_items")
async def input_items(request: Request) -> Response:
    items = (await _found(request)).items
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
    return json_response({"object": "list", "data": items, "has_more": False, **ends})


@routes.post("/{response_id}/cancel")
async def cancel(request: Request) -> Response:
    """Ends a response that runs, with what it has said so far."""
    store, key_name = _store(request)
    stored = await _found(request)
    if stored.interrupt is not None:
        stored.interrupt.ask("cancel")
        return json_response(stored.read())
    if not runs(stored) or await store.ask(key_name, stored.id, "cancel") is None:
        raise ApiError(409, "this response has ended", param="response_id", code="cannot_cancel")
    return json_response((await store.ended(key_name, stored.id) or stored).read())


@routes.delete("/{response_id}")
async def delete(request: Request) -> Response:
    """Forgets a response. One that runs goes on and is not kept."""
    store, key_name = _store(request)
    store.delete(key_name, response_id := (await _found(request)).id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@routes.post("/input_tokens")
@json_body(ResponsesRequest)
async def count(request: Request, body: ResponsesRequest) -> Response:
    """How many tokens the input of such a request has."""
    store, key_name = _store(request)
    items = await _resolved(store, key_name, body)
    earlier = await _earlier(store, key_name, body.previous_response_id)
    generation = prepare(body.generation_request(items, earlier, runtime_of(request).seal.unseal), request)
    tokens = await prompt_tokens(generation.route, generation.conversation, generation.policy)
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})


def _store(request: Request) -> tuple[Responses, str | None]:
    return runtime_of(request).responses, request.scope["state"].get("key_name")


async def _found(request: Request) -> Stored:
    store, key_name = _store(request)
    if (stored := await store.find(key_name, request.path_params["response_id"])) is None:
        raise ApiError(404, "there is no such response", param="response_id", code="not_found")
    return stored


async def _resolved(store: Responses, key_name: str | None, body: ResponsesRequest) -> Sequence[Any]:
    """The items of the request, with what was kept in place of references to it."""
    references = [item.id for item in body.items if isinstance(item, ItemReference)]
    known = {name: await store.item(key_name, name) for name in references}
    return resolved(body.items, known.get)


async def _earlier(store: Responses, key_name: str | None, response_id: str | None) -> list[Turn]:
    """The turns of an earlier response and of all before it. Raises `ApiError` where it is not kept, or runs."""
    if response_id is None:
        return []
    stored, field = await store.ended(key_name, response_id), "previous_response_id"
    if stored is None:
        raise ApiError(404, f"{field}: there is no such response", param=field, code="previous_response_not_found")
    if runs(stored):
        raise ApiError(409, f"{field}: this response has not ended", param=field, code="previous_response_runs")
    said = [turns(ITEMS.validate_python(items), MessageReader()) for items in (stored.items, stored.body["output"])]
    return [*stored.earlier, *chain.from_iterable(said)]


def _kept(
    run: Run[Event], store: Responses, key_name: str | None, stored: Stored, encoder: ResponseEncoder
) -> Run[Event]:
    """The run of a response that is kept from the first event on, as it stands then and when it ends: before, nobody
    has been told its id, unless it was queued. One whose client has left is cancelled."""

    async def running(take: Take[Event]) -> None:
        told, queued = False, encoder.response["status"] == "queued"
        encoder.response["status"] = "in_progress"

        def taken(index: int, event: Event) -> Awaitable[None] | None:
            nonlocal told
            taking = take(index, event)
            if not told:
                told = True
                if not queued or store.is_here(key_name, stored):  # else it was deleted before it began
                    store.put(key_name, stored)
            return taking

        try:
            await run(taken)
        except Exception as error:
            encoder.fail(api_error(error))
            raise
        finally:
            if encoder.response["status"] == "in_progress":
                encoder.response["status"] = "cancelled"
            stored.end()
            if store.is_here(key_name, stored):
                store.put(key_name, stored)

    return running


def _admit(request: Request, stored: Stored, encoder: ResponseEncoder) -> None:
    """Keeps a response that is to run in the background, where only the store leads to it. Raises `ApiError` where it
    cannot be kept."""
    store, key_name = _store(request)
    encoder.response["status"] = "queued"
    if len(runtime_of(request).background) < store.most and store.put(key_name, stored):
        return
    if not store.has_room(stored.size):
        raise ApiError(400, "background: a response of this size is not kept here", param="background", code="not_kept")
    message = "as many responses as this server keeps run in the background already"
    raise ApiError(503, message, type="server_error", code="overloaded", headers={"retry-after": "1"})


def _in_background(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Nobody waits for this work: its failure is told in the response, and logged where it was not foreseen. Observers
    of requests hear of the reply when it has ended, not with the answer that it has begun."""
    state = request.scope["state"]
    observer = state.pop("watch")

    async def unattended() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the response tells it to whoever asks
            reported(error, state["request_id"])
        finally:
            state["watch"] = observer
            state["report"](background=True)

    background = runtime_of(request).background
    task = asyncio.create_task(unattended())
    background.add(task)
    task.add_done_callback(background.discard)
