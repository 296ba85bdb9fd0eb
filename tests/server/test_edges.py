"""Request ids, body limits and cross-origin requests."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import uvloop
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from server.app import Application
from server.config.load import ServerConfig
from server.edges.endpoints import Routes, json_body
from server.edges.request_scope import RequestScope, choose_id
from server.edges.sse import while_connected

LIMIT = "[server]\nmax_body_bytes = 100\n"


class Anything(BaseModel):
    pass


def with_echo(app: Application) -> Application:
    routes = Routes()

    @routes.post("/length")
    async def length(request: Request) -> Response:
        return JSONResponse({"length": len(await request.body()), "id": request.state.request_id})

    @routes.post("/json")
    @json_body(Anything)
    async def json(request: Request, body: Anything) -> Response:
        return JSONResponse(None)

    app.router.routes += routes
    return app


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 10


@pytest.mark.anyio
async def test_a_clients_request_id_reaches_the_route_and_comes_back(make_app, make_client):
    async with make_client(with_echo(make_app())) as client:
        answer = await client.post("/length", headers={"x-request-id": "trace-1.a:b_c"})
    assert answer.headers["x-request-id"] == answer.json()["id"] == "trace-1.a:b_c"


@pytest.mark.parametrize("offered", [None, "", "a b", "a\nb", "é", "x" * 129, "<script>"])
def test_an_id_that_cannot_stand_in_a_log_is_replaced(offered):
    assert choose_id(offered) != offered
    assert choose_id(offered) != choose_id(offered)


@pytest.mark.anyio
async def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(make_app, make_client):
    async with make_client(with_echo(make_app(extra=LIMIT))) as client:
        assert (await client.post("/length", content=b"x" * 100)).json()["length"] == 100
        answer = await client.post("/length", content=b"x" * 101)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert answer.headers["x-request-id"]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/length", "/json"])
async def test_a_body_of_unannounced_length_is_counted_while_it_arrives(make_app, make_client, path):
    async with make_client(with_echo(make_app(extra=LIMIT))) as client:
        answer = await client.post(path, content=pieces(11), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.anyio
async def test_a_body_that_understates_its_length_is_counted_all_the_same(make_app, make_client):
    async with make_client(with_echo(make_app(extra=LIMIT))) as client:
        answer = await client.post("/length", content=pieces(11), headers={"content-length": "5"})
    assert answer.status_code == 413


@pytest.mark.anyio
async def test_other_origins_are_closed_by_default(make_client):
    async with make_client() as client:
        answer = await client.get("/v1/models", headers={"origin": "https://chat.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.anyio
async def test_a_configured_origin_may_ask_before_it_has_a_key_and_reads_refusals(make_client):
    allowed = '[server]\ncors_origins = ["https://chat.example"]\n'
    origin = {"origin": "https://chat.example"}
    asking = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with make_client(extra=allowed, keys="k") as client:
        assert (await client.options("/v1/models", headers=asking)).status_code == 200
        refused = await client.get("/v1/models", headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://chat.example")
        other = await client.get("/v1/models", headers={"origin": "https://other.example", "x-api-key": "k"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.anyio
async def test_a_failure_after_the_first_byte_travels_on_so_that_the_connection_is_cut(caplog):
    async def broken(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    with pytest.raises(RuntimeError):
        await RequestScope(broken, ServerConfig())(
            {"type": "http", "headers": [(b"x-request-id", b"r1")]}, receive, send
        )
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert "request r1 failed after its answer had begun" in caplog.text


def test_work_that_is_done_needs_no_sign_of_life_even_where_the_loop_is_late():
    """uvloop looks at its timers before anything else: the one of the sign is due before the work's end is heard of."""
    signs: list[float] = []

    async def idle() -> float:
        signs.append(time.monotonic())
        return asyncio.get_running_loop().time() + 0.05

    async def refuse() -> None:
        raise LookupError

    async def story() -> None:
        waiting = asyncio.create_task(while_connected(asyncio.Event().wait, refuse(), idle))
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        with pytest.raises(LookupError):
            await waiting

    uvloop.run(story())
    assert len(signs) == 1
