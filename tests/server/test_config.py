"""Settings: what is refused, with which key, and what follows from what is left out."""

from pathlib import Path

import pytest

from models.engines import VllmEngineConfig
from server.config.load import Config, ConfigError, load_config, parse_config
from server.families import detect_families
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT

ENGINE = '[engines.demo]\nkind = "vllm"\nmodel = "some/model"\nadapters = { maths = "some/adapter" }\n'
ROUTE = '[routes.demo]\nengine = "demo"\nfamily = "lhrm"\n'


def parse(text: str) -> Config:
    return parse_config(text, Path("/nowhere"))


def test_the_smallest_file_gets_the_defaults():
    config = parse(ENGINE + ROUTE)
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.server.cors_origins == ()
    assert config.routes["demo"].controller == "mode"


@pytest.mark.parametrize(
    ("family", "mode"), [("lhrm", "auto"), ("qwen3", "think"), ("deepseek_r1", "think"), ("plain", "no_think")]
)
def test_a_route_without_a_mode_takes_what_its_family_does_by_itself(family, mode):
    route = parse(ENGINE + ROUTE.replace("lhrm", family)).routes["demo"]
    assert route.default_mode == mode


REFUSED = {
    "unknown key": (ENGINE + ROUTE + "colour = 1", "routes.demo.colour: unknown key"),
    "unknown section": (ENGINE + ROUTE + "[extra]\n", "extra: unknown key"),
    "unknown key in an engine": (ENGINE.replace("model", "moddel") + ROUTE, "engines.demo.moddel: unknown key"),
    "missing key": (ENGINE + '[routes.demo]\nfamily = "lhrm"', "routes.demo.engine: Field required"),
    "missing kind": ('[engines.demo]\nmodel = "m"\n' + ROUTE, "engines.demo"),
    "unknown kind": ('[engines.demo]\nkind = "magic"\n' + ROUTE, "engines.demo"),
    "no routes": (ENGINE, "routes: Field required"),
    "wrong type": ('[server]\nport = "many"\n' + ENGINE + ROUTE, "server.port"),
    "port out of range": ("[server]\nport = 70000\n" + ENGINE + ROUTE, "server.port"),
    "unknown engine": (ENGINE + ROUTE.replace('"demo"', '"other"'), "routes.demo.engine: no engine 'other'"),
    "unknown family": (ENGINE + ROUTE.replace("lhrm", "sphinx"), "routes.demo.family: unknown family 'sphinx'"),
    "unknown adapter": (ENGINE + ROUTE + 'adapter = "law"', "routes.demo.adapter"),
    "unknown mode": (ENGINE + ROUTE + 'mode = "sometimes"', "routes.demo.mode"),
    "auto where none is": (ENGINE + ROUTE.replace("lhrm", "qwen3") + 'mode = "auto"', "routes.demo.mode"),
    "thinking where none is": (ENGINE + ROUTE.replace("lhrm", "plain") + 'mode = "think"', "routes.demo.mode"),
    "threshold without auto": (
        ENGINE + ROUTE + 'mode = "think"\nthink_threshold = 0.5',
        "routes.demo.think_threshold: only a route whose mode is auto",
    ),
    "exit without thinking": (
        ENGINE + ROUTE.replace("lhrm", "selfbudgeter") + 'exit = { rule = "margin" }',
        "routes.demo.exit: models of family 'selfbudgeter' have no thinking",
    ),
    "unknown exit": (ENGINE + ROUTE + 'exit = { rule = "soon" }', "routes.demo.exit"),
    "threshold out of range": (ENGINE + ROUTE + "think_threshold = 1.5", "routes.demo.think_threshold"),
    "sampling out of range": (ENGINE + ROUTE + "sampling = { top_p = 0.0 }", "routes.demo.sampling.top_p"),
    "unknown sampling": (ENGINE + ROUTE + "sampling = { heat = 1 }", "routes.demo.sampling.heat: unknown key"),
    "odd route name": (ENGINE + ROUTE.replace("routes.demo", 'routes."a b"'), "routes.a b: a route's name"),
    "dashed argument": (ENGINE + "args = { block-size = 1 }\n" + ROUTE, "engines.demo.args: write 'block-size'"),
    "argument with its own place": (ENGINE + 'args = { model = "x" }\n' + ROUTE, "engines.demo.args: 'model'"),
    "missing local model": (ENGINE.replace("some/model", "./none") + ROUTE, "engines.demo.model: './none'"),
    "a short key": ("[server]\nseal_key = 'abcd'\n" + ENGINE + ROUTE, "server.seal_key: 2 bytes"),
    "a key in no code": ("[server]\nseal_key = '!!'\n" + ENGINE + ROUTE, "server.seal_key: expected hex or base64"),
    "a number as key": ("[server]\nseal_key = 5\n" + ENGINE + ROUTE, "server.seal_key: expected hex or base64"),
    "a name of another route": (
        ENGINE + ROUTE + 'names = ["other"]\n' + ROUTE.replace("routes.demo", "routes.other"),
        "routes.demo.names: 'other'",
    ),
    "an odd name": (ENGINE + ROUTE + 'names = ["a b"]', "routes.demo.names: 'a b'"),
    "sampling that requests may not have": (
        ENGINE + ROUTE + "sampling = { repetition_penalty = 11.0 }",
        "routes.demo.sampling.repetition_penalty",
    ),
    "missing keys file": ('[server]\nkeys_file = "none"\n' + ENGINE + ROUTE, "server.keys_file"),
    "origin with a path": (
        '[server]\ncors_origins = ["https://chat.example/"]\n' + ENGINE + ROUTE,
        "server.cors_origins.0",
    ),
    "not TOML": ("[server", "not TOML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_and_the_message_names_the_key(case):
    text, message = REFUSED[case]
    with pytest.raises(ConfigError) as refusal:
        parse(text)
    assert message in str(refusal.value)
    assert "Value error" not in str(refusal.value)


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as refusal:
        parse("[server]\nport = -1\nhost = 5\n" + ENGINE + ROUTE)
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == ["server.host", "server.port"]


def test_a_model_beside_the_file_wins_over_one_in_the_working_directory_and_both_over_a_hub_id(tmp_path, monkeypatch):
    beside, working = tmp_path / "etc", tmp_path / "work"
    (beside / "both").mkdir(parents=True)
    (working / "both").mkdir(parents=True)
    (working / "one").mkdir()
    monkeypatch.chdir(working)

    def model(name: str) -> str:
        drafts = f'args = {{ speculative_config = {{ model = "{name}", num_speculative_tokens = 4 }} }}\n'
        engine = parse_config(ENGINE.replace("some/model", name) + drafts + ROUTE, beside).engines["demo"]
        assert isinstance(engine, VllmEngineConfig)
        assert engine.args["speculative_config"] == {"model": engine.model, "num_speculative_tokens": 4}
        return engine.model

    assert model("both") == str(beside / "both")
    assert model("one") == str(working / "one")
    assert model("hub/id") == "hub/id"


TWO = """
[engines.large]
kind = "vllm"
model = "a/large"
{large}
[engines.small]
kind = "vllm"
model = "a/small"
{small}
[routes.demo]
engine = "large"
family = "plain"
"""


def test_two_engines_on_one_device_must_each_say_how_much_memory_they_take():
    with pytest.raises(ConfigError, match=r"engines\.small\.args: .*kv_cache_memory_bytes"):
        parse(TWO.format(large="args = { gpu_memory_utilization = 0.5 }", small=""))
    parse(TWO.format(large="args = { gpu_memory_utilization = 0.5 }", small="args = { kv_cache_memory_bytes = 1e9 }"))
    parse(TWO.format(large='env = { VLLM_CPU_KVCACHE_SPACE = "1" }', small='env = { VLLM_CPU_KVCACHE_SPACE = "1" }'))
    parse(TWO.format(large='env = { CUDA_VISIBLE_DEVICES = "0" }', small='env = { CUDA_VISIBLE_DEVICES = "1" }'))


def test_two_engines_cannot_take_more_than_the_whole_device():
    share = "args = { gpu_memory_utilization = 0.6 }"
    with pytest.raises(ConfigError, match=r"adds up to 1\.2"):
        parse(TWO.format(large=share, small=share))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("key", ["00112233445566778899aabbccddeeff", "ABEiM0RVZneImaq7zN3u/w=="])
def test_a_key_is_hex_or_base64_and_is_not_shown(key):
    config = parse(f"[server]\nseal_key = '{key}'\n" + ENGINE + ROUTE)
    assert config.server.seal_key.get_secret_value() == bytes(range(0, 256, 17))
    assert key not in repr(config)
    assert key not in config.model_dump_json()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse(ENGINE + ROUTE).server.port = 1


def test_a_configuration_has_families_of_its_own_and_their_faults_have_a_key():
    own = '\n[families.mine]\nlike = "qwen3"\nthinking = ["<hm>", "</hm>"]\nclosing = "</hm>"\n'
    config = parse_config(ENGINE_AND_ROUTE.replace("lhrm", "mine") + own, ROOT)
    assert config.routes["demo"].of_family.thinking == ("<hm>", "</hm>")
    assert next(iter(config.known_families)) == "mine"
    with pytest.raises(ConfigError, match=r"^families\.mine\.thinkin: unknown key$"):
        parse_config(ENGINE_AND_ROUTE + own.replace("thinking", "thinkin"), ROOT)


def test_a_route_without_a_family_gets_the_one_that_its_template_speaks_for():
    text = ENGINE_AND_ROUTE.replace('family = "lhrm"', "")
    config = parse_config(text, ROOT)
    assert config.routes["demo"].family == "auto"
    found = detect_families(config).routes["demo"]
    assert (found.family, found.of_family.name, found.default_mode) == ("qwen3", "qwen3", "think")
    assert "its tags stand in the template" in found.found_by
    with pytest.raises(ConfigError, match=r"^routes\.demo\.mode: family 'qwen3' has think, no_think, not auto$"):
        detect_families(parse_config(text + 'mode = "auto"\n', ROOT))
    assert detect_families(parse_config(ENGINE_AND_ROUTE, ROOT)).routes["demo"].found_by == "named by the configuration"
