"""A server that speaks as much of vLLM's API as an engine of kind `remote` asks, over a scripted engine.

`python -m tests.vllm_like PORT` runs one in a process of its own.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from models.engines.base import Delta, Prompt, Sampling
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from tests.processes import free_port

ROOT = Path(__file__).parent.parent


@dataclass
class VllmLike:
    """`token_ids`: whether it knows `return_token_ids`. `status`: what it answers to every completion, where that is no
    200. `prompts` are those it was asked, in turn."""

    engine: ScriptedEngine
    model: str = "demo"
    token_ids: bool = True
    status: int = 200
    healthy: bool = True
    prompts: list[list[int]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ]
        )

    async def health(self, request: Request) -> Response:
        return Response(status_code=200 if self.healthy else 503)

    async def models(self, request: Request) -> Response:
        card = {"id": self.model, "max_model_len": self.engine.context_length}
        return JSONResponse({"object": "list", "data": [card]})

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        if self.status != 200:
            return JSONResponse({"error": {"message": "no", "code": self.status}}, self.status)
        self.prompts.append(body["prompt"])
        sampling = Sampling(max_tokens=body["max_tokens"], seed=body.get("seed"), whole=not body.get("stream"))
        deltas = self.engine.generate(Prompt(body["prompt"]), sampling)
        if body.get("stream"):
            return StreamingResponse(self.events(deltas), media_type="text/event-stream")
        async with aclosing(deltas):
            (delta,) = [delta async for delta in deltas]
        return JSONResponse({"choices": [self.choice(delta)]})

    async def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncIterator[bytes]:
        async with aclosing(deltas):
            async for delta in deltas:
                yield b"data: " + orjson.dumps({"choices": [self.choice(delta)]}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def choice(self, delta: Delta) -> dict[str, Any]:
        ids = {"token_ids": list(delta.token_ids)} if self.token_ids else {}
        return {"text": delta.text, "finish_reason": delta.finish, "stop_reason": delta.stopped_by, **ids}


class Running:
    """A server of this loop, while it runs."""

    def __init__(self, app: Starlette, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(app, port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve())

    async def up(self) -> None:
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        assert self._server.started

    async def kill(self) -> None:
        """Ends it as a crash would: connections are reset."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        self._server.should_exit = self._server.force_exit = True
        await self._task


@asynccontextmanager
async def running(app: Starlette, port: int | None = None) -> AsyncIterator[Running]:
    server = Running(app, port or free_port())
    await server.up()
    try:
        yield server
    finally:
        await server.kill()


def main(arguments: Sequence[str]) -> None:
    tokenizer = HubTokenizer(ROOT / "demo" / "tokenizer")
    engine = ScriptedEngine(tokenizer, ["<think>so</think>" + "5 " * 40], token_delay=0.01)
    uvicorn.run(VllmLike(engine).app(), port=int(arguments[0]), log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1:])
