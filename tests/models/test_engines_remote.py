"""An engine elsewhere: what kind of server it will have, and what it says of another."""

from contextlib import AsyncExitStack

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from models.engines.base import EngineDead, EngineError, Prompt, Sampling
from models.engines.remote import RemoteEngine
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.config.load import ConfigError, parse_config
from server.engines import start_engines
from tests.conftest import ROOT, Run
from tests.processes import free_port
from tests.vllm_like import VllmLike, running

CONFIG = """
[engines.far]
kind = "remote"
model = "demo/tokenizer"
url = "{url}"
{more}
[routes.demo]
engine = "far"
family = "lhrm"
"""


@pytest.fixture
def like(tokenizer: HubTokenizer) -> VllmLike:
    return VllmLike(ScriptedEngine(tokenizer, ["<think>so</think>five"]))


async def started(app: Starlette, more: str = "") -> str:
    """What a reply of the engine is, where it starts."""
    async with running(app) as server, AsyncExitStack() as stack:
        config = parse_config(CONFIG.format(url=server.url, more=more), ROOT)
        engine = (await start_engines(config, stack))["far"]
        return "".join([delta.text async for delta in engine.generate(Prompt([1, 2]), Sampling(max_tokens=30))])


def answering(body: dict[str, object]) -> Starlette:
    return Starlette(routes=[Route("/v1/models", lambda request: JSONResponse(body))])


def test_it_speaks_vllms_completions(run: Run, like: VllmLike) -> None:
    assert run(started(like.app())) == "<think>so</think>five"
    assert like.prompts == [[0], [1, 2]]  # what it says at start, and the request


def test_a_server_without_token_ids_is_refused_at_start_by_name(run: Run, like: VllmLike) -> None:
    like.token_ids = False
    with pytest.raises(ConfigError, match=r"^engines\.far: http://\S+ gives no token ids: .*return_token_ids$"):
        run(started(like.app()))


def test_a_model_that_the_server_has_not_is_told_with_those_it_has(run: Run, like: VllmLike) -> None:
    with pytest.raises(ConfigError, match=r"^engines\.far: .* serves demo, not other$"):
        run(started(like.app(), 'served_model = "other"'))


@pytest.mark.parametrize(
    "app",
    [
        Starlette(routes=[Route("/v1/models", lambda request: HTMLResponse("<h1>hello</h1>"))]),
        Starlette(),
        answering({"object": "list"}),
        answering({"data": [{"id": "gpt"}]}),
        answering({"data": "none"}),
    ],
)
def test_a_server_that_is_no_vllm_is_one_line_with_the_key(run: Run, app: Starlette) -> None:
    with pytest.raises(ConfigError, match=r"^engines\.far: http://\S+ is no vLLM server: .*$"):
        run(started(app))


def test_a_key_that_the_environment_lacks_is_named(run: Run, like: VllmLike, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THEIR_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"^engines\.far: key_env: .*THEIR_KEY$"):
        run(started(like.app(), 'key_env = "THEIR_KEY"'))


def test_a_refused_key_is_told(run: Run) -> None:
    app = Starlette(routes=[Route("/v1/models", lambda request: JSONResponse({"error": {"message": "who?"}}, 401))])
    with pytest.raises(ConfigError, match=r"^engines\.far: .*who\? \(HTTP 401\)$"):
        run(started(app))


def test_a_server_that_is_not_there_is_a_dead_engine(run: Run, tokenizer: HubTokenizer) -> None:
    with pytest.raises(EngineDead):
        run(RemoteEngine.connect(f"http://127.0.0.1:{free_port()}", tokenizer, name="gone"))


def test_a_stream_that_breaks_off_is_an_error(run: Run, tokenizer: HubTokenizer) -> None:
    like = VllmLike(ScriptedEngine(tokenizer, ["five " * 100], token_delay=0.01))

    async def broken() -> None:
        async with running(like.app()) as server:
            engine = await RemoteEngine.connect(server.url, tokenizer, name="far")
            async for _ in engine.generate(Prompt([1]), Sampling()):
                await server.kill()

    with pytest.raises(EngineError):
        run(broken())
