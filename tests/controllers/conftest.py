"""Routes over scripted engines."""

from collections.abc import Callable

import pytest

from controllers import CONTROLLERS
from controllers.policy import Defaults
from controllers.route import Route, build_route
from models.families import FAMILIES
from models.scripted_engine import Line, Script, ScriptedEngine
from models.tokenizer import HubTokenizer

MakeRoute = Callable[..., Route]


@pytest.fixture(scope="session")
def tokenizer() -> HubTokenizer:
    return HubTokenizer("demo/tokenizer")


@pytest.fixture
def make_route(tokenizer: HubTokenizer) -> MakeRoute:
    def make(script: Script | list[Line], family: str = "lhrm", mode: str = "auto", **engine: float) -> Route:
        replayed = ScriptedEngine(tokenizer, script, **engine)  # type: ignore[arg-type]
        return build_route("r", CONTROLLERS["mode"], FAMILIES[family], replayed, Defaults(mode))  # type: ignore[arg-type]

    return make
