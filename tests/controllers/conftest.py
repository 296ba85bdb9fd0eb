"""Routes over scripted engines."""

from collections.abc import Callable

import pytest

from controllers import CONTROLLERS
from controllers.judge import Judge
from controllers.policy import Defaults
from controllers.route import Route, build_route
from models.engine import Prompt, Sampling
from models.families import FAMILIES
from models.judge_families import JUDGE_FAMILIES, load_forms
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


class Reader:
    """A script that judges by a rule: it reads the two replies out of the prompt of the shipped RRM template.

    `rule(first, second)` is what it writes; every prompt that it has read is in `asked`, as pairs of replies.
    """

    def __init__(self, tokenizer: HubTokenizer, rule: Callable[[str, str], str]) -> None:
        self.tokenizer = tokenizer
        self.rule = rule
        self.asked: list[tuple[str, str]] = []
        self.sampled: list[Sampling] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        text = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        first = text.rpartition("### Assistant 1\n")[2].partition("\n\n### Assistant 2\n")[0]
        second = text.rpartition("### Assistant 2\n")[2].partition("\n\n## Analysis")[0]
        self.asked.append((first, second))
        self.sampled.append(sampling)
        return self.rule(first, second)


def larger_number(first: str, second: str) -> str:
    """The perfect judge of replies that are numbers."""
    better = "Assistant 1" if int(first) > int(second) else "Assistant 2"
    return f"<think>{first} against {second}</think>\\boxed{{{better}}}"


MakeJudge = Callable[..., tuple[Judge, Reader]]


@pytest.fixture
def make_judge(tokenizer: HubTokenizer, make_route: MakeRoute) -> MakeJudge:
    """A judge over a script that judges by a rule, and what the script has seen."""

    def make(
        rule: Callable[[str, str], str] = larger_number, *, family: str = "rrm", engine: dict | None = None, **options
    ) -> tuple[Judge, Reader]:
        reader = Reader(tokenizer, rule)
        of_family = JUDGE_FAMILIES[family]
        route = make_route(reader, **(engine or {}))
        return Judge(route, CONTROLLERS["mode"], of_family, load_forms(of_family, {}), **options), reader

    return make
