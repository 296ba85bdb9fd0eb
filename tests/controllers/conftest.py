"""Routes over scripted engines."""

from collections.abc import Callable, Mapping

import pytest

from controllers import CONTROLLERS
from controllers.generation.route import Route, build_route
from controllers.judging.judge import Judge
from controllers.judging.settings import JudgeConfig
from controllers.policy.fold import Defaults
from models.engines.scripted import Line, Script, ScriptedEngine
from models.formats import FAMILIES
from models.judge_prompts.families import JUDGE_FAMILIES, load_forms
from models.text.tokenizer import HubTokenizer
from tests.formats import tokenizer_of
from tests.judging import Reader, larger_number

MakeRoute = Callable[..., Route]


@pytest.fixture(scope="session")
def tokenizer() -> HubTokenizer:
    return HubTokenizer("demo/tokenizer")


@pytest.fixture
def make_route(tokenizer: HubTokenizer, stepping: Mapping[str, int]) -> MakeRoute:
    def make(script: Script | list[Line], family: str = "lhrm", mode: str = "auto", **engine: float) -> Route:
        known = tokenizer_of(family) if family == "deepseek_r1" else tokenizer
        replayed = ScriptedEngine(known, script, **{**stepping, **engine})  # type: ignore[arg-type]
        return build_route("r", CONTROLLERS["mode"], FAMILIES[family], replayed, Defaults(mode))  # type: ignore[arg-type]

    return make


MakeJudge = Callable[..., tuple[Judge, Reader]]


@pytest.fixture
def make_judge(tokenizer: HubTokenizer, make_route: MakeRoute) -> MakeJudge:
    """A judge over a script that judges by a rule, and what the script has seen."""

    def make(
        rule: Callable[[str, str], Line] = larger_number,
        *,
        single: Callable[[str, str], Line] | None = None,
        family: str = "rrm",
        engine: dict | None = None,
        **options,
    ) -> tuple[Judge, Reader]:
        reader = Reader(tokenizer, rule, single)
        route, forms = make_route(reader, **(engine or {})), load_forms(JUDGE_FAMILIES[family], {})
        own = {name: value for name, value in options.items() if name in JudgeConfig.model_fields}
        others = {name: value for name, value in options.items() if name not in own}
        return Judge(route, CONTROLLERS["mode"], forms, JudgeConfig(family=family, **own), **others), reader

    return make
