"""A server over a scripted engine with the demo tokenizer: what the tests of the edges drive."""

from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import Application, create_app
from server.config.load import parse_config
from server.edges.request_scope import Observer

ROOT = Path(__file__).parents[2]

ENGINE_AND_ROUTE = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
replies = ["<no_think>5</no_think>"]

[routes.demo]
engine = "demo"
family = "lhrm"
"""

MakeApp = Callable[..., Application]
MakeClient = Callable[..., httpx.AsyncClient]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tokenizer() -> HubTokenizer:
    return HubTokenizer(ROOT / "demo/tokenizer")


@pytest.fixture
def engine(tokenizer: HubTokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer, ["<no_think>5</no_think>"], name="demo", context_length=512)


@pytest.fixture
def make_app(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> MakeApp:
    """An application over the scripted engine; `extra` goes in front of the settings' one engine and route."""

    def make(
        extra: str = "", keys: str = "", routes: str = ENGINE_AND_ROUTE, observers: Sequence[Observer] = ()
    ) -> Application:
        monkeypatch.setenv("REASOND_API_KEYS", keys)
        return create_app(parse_config(extra + routes, ROOT), {"demo": engine}, observers)

    return make


@pytest.fixture
def make_client(make_app: MakeApp) -> MakeClient:
    """A client of `make_app`'s application, or of the one given."""

    def make(app: Application | None = None, **settings: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(make_app(**settings) if app is None else app)
        return httpx.AsyncClient(transport=transport, base_url="http://reasond")

    return make
