"""Putting a server together: routes over engines, and the agreement between a family and a chat template."""

import pytest

from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.assemble import assemble
from server.config.load import ConfigError, parse_config
from tests.formats import CLOSED, OPENS, SWITCHES
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT


def engine_with(template: str) -> ScriptedEngine:
    return ScriptedEngine(HubTokenizer(ROOT / "demo/tokenizer", chat_template=template), ["5"])


def config_for(family: str):
    return parse_config(ENGINE_AND_ROUTE.replace("lhrm", family), ROOT)


@pytest.mark.parametrize(
    ("family", "template"), [("lhrm", CLOSED), ("qwen3", SWITCHES), ("qwq", OPENS), ("plain", CLOSED)]
)
def test_a_family_and_a_template_that_agree_make_a_route(family, template):
    runtime = assemble(config_for(family), {"demo": engine_with(template)}, 0)
    assert runtime.routes["demo"].family.name == family
    assert not runtime.draining.is_set()


@pytest.mark.parametrize(
    ("family", "template", "fault"),
    [
        (
            "lhrm",
            OPENS,
            r"ends with '[^']*<think>\\n' in mode think, where the family opens thinking itself with '<think>",
        ),
        ("kimi_k2", OPENS, r"ends with '[^']*<think>\\n' in mode think, where the family opens thinking itself"),
        ("qwen3", CLOSED, r"assistant\\n' with and without thinking \(enable_thinking=False\)"),
        ("deepseek_r1", CLOSED, r"assistant\\n' in mode no_think, where the family closes thinking with '</think>"),
        ("gemma4", CLOSED, r"the template writes a turn as '.*neither it nor the vocabulary knows '<\|channel>thought"),
    ],
)
def test_a_family_and_a_template_that_disagree_are_refused(family, template, fault):
    with pytest.raises(ConfigError, match=rf"^routes\.demo\.family: '{family}' does not fit engine 'demo': .*{fault}"):
        assemble(config_for(family), {"demo": engine_with(template)}, 0)


def test_a_routes_settings_reach_its_route(engine):
    text = ENGINE_AND_ROUTE + "think_threshold = 0.3\nsampling = { temperature = 0.6, max_tokens = 7 }\n"
    route = assemble(parse_config(text, ROOT), {"demo": engine}, 0).routes["demo"]
    assert (route.defaults.mode, route.defaults.think_threshold) == ("auto", 0.3)
    assert (route.sampling.temperature, route.sampling.top_p, route.sampling.max_tokens) == (0.6, None, 7)
    assert route.engine is engine


def test_an_engine_that_is_configured_must_be_given():
    with pytest.raises(ConfigError, match=r"engines\.demo"):
        create_app(config_for("lhrm"), {})
