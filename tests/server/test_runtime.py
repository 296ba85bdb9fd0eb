"""Putting a server together: routes over engines, and the agreement between a family and a chat template."""

import pytest

from models.engines.scripted import ScriptedEngine
from models.formats import FAMILIES
from models.formats.template import opens_thinking
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.assemble import assemble
from server.config.load import ConfigError, parse_config
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

CLOSED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
OPEN = CLOSED + "<think>\n"
EMPTY_BLOCK = OPEN + "\n</think>\n\n"


def engine_with(template: str) -> ScriptedEngine:
    return ScriptedEngine(HubTokenizer(ROOT / "demo/tokenizer", chat_template=template), ["5"])


def config_for(family: str):
    return parse_config(ENGINE_AND_ROUTE.replace("lhrm", family), ROOT)


def test_only_a_template_that_ends_inside_the_tag_opens_thinking():
    family = FAMILIES["deepseek_r1"]
    explains = "Write <think> before you think.\n" + CLOSED
    opened = [opens_thinking(family, engine_with(t).tokenizer) for t in (CLOSED, OPEN, EMPTY_BLOCK, explains)]
    assert opened == [False, True, False, False]


@pytest.mark.parametrize(
    ("family", "template"), [("lhrm", CLOSED), ("qwen3", CLOSED), ("deepseek_r1", OPEN), ("plain", OPEN)]
)
def test_a_family_and_a_template_that_agree_make_a_route(family, template):
    runtime = assemble(config_for(family), {"demo": engine_with(template)}, 0)
    assert runtime.routes["demo"].family.name == family
    assert not runtime.draining.is_set()


@pytest.mark.parametrize(("family", "template"), [("lhrm", OPEN), ("qwen3", OPEN), ("deepseek_r1", CLOSED)])
def test_a_family_and_a_template_that_disagree_are_refused(family, template):
    with pytest.raises(ConfigError, match=r"routes\.demo\.family: .*<think>"):
        assemble(config_for(family), {"demo": engine_with(template)}, 0)


def test_the_demo_tokenizer_fits_the_demo_family(tokenizer):
    assert not opens_thinking(FAMILIES["lhrm"], tokenizer)


def test_a_routes_settings_reach_its_route(engine):
    text = ENGINE_AND_ROUTE + "think_threshold = 0.3\nsampling = { temperature = 0.6, max_tokens = 7 }\n"
    route = assemble(parse_config(text, ROOT), {"demo": engine}, 0).routes["demo"]
    assert (route.defaults.mode, route.defaults.think_threshold) == ("auto", 0.3)
    assert (route.sampling.temperature, route.sampling.top_p, route.sampling.max_tokens) == (0.6, None, 7)
    assert route.engine is engine


def test_an_engine_that_is_configured_must_be_given():
    with pytest.raises(ConfigError, match=r"engines\.demo"):
        create_app(config_for("lhrm"), {})
