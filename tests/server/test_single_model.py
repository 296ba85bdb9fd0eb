"""One model from the command line, without a file: what it comes to, and what `reasond check` says of it."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from server.cli import main
from server.config.command_line import merged, table_of, to_toml
from server.config.load import ConfigError, parse_table
from tests.families.corpus import corpus
from tests.server.checkpoints import CONTEXT, change_config, write_qwen3
from tests.server.conftest import ROOT

FLAGS = ["--max-model-len", "8k", "--enforce-eager", "--no-enable-prefix-caching", "--dtype=bfloat16", "-tp", "2"]
MORE = ["--limit-mm-per-prompt", '{"image": 2}', "--speculative-config.model", "x", "--compilation-config.mode", "0"]


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    if isinstance(corpus(), str):
        pytest.skip(str(corpus()))
    return write_qwen3(tmp_path_factory.mktemp("models") / "Qwen3-0.6B")


def test_a_model_and_vllms_own_flags_make_a_configuration(capsys):
    assert main(["serve", "some/Model-7B", "--print-config", *FLAGS, *MORE, "--port", "9000", "-v"]) == 0
    table = tomllib.loads(capsys.readouterr().out)
    assert table["engines"]["main"] == {
        "kind": "vllm",
        "model": "some/Model-7B",
        "args": {
            "max_model_len": 8000,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "dtype": "bfloat16",
            "tensor_parallel_size": 2,
            "limit_mm_per_prompt": {"image": 2},
            "speculative_config": {"model": "x"},
            "compilation_config": {"mode": 0},
        },
    }
    assert table["routes"] == {"Model-7B": {"engine": "main", "family": "auto", "names": ["some/Model-7B"]}}
    assert (table["server"], table["logging"]) == ({"port": 9000}, {"level": "debug"})


def test_what_is_printed_is_the_very_table_that_is_served(tmp_path):
    beside = tmp_path / "rest.toml"
    beside.write_text(
        '[server]\nport = 1\ncors_origins = ["*"]\n[engines.main.env]\nX = "1"\n[routes."My Model".budgets]\ncap = 9\n'
        "[routes.mine]\nengine = 'main'\nmode = 'no_think'\nsampling = { top_p = 0.5, stop = ['a\"b\\\\', 'ö'] }\n"
    )
    table, folder = table_of(str(ROOT / "demo/hybrid"), ["mine", "other"], [], str(beside), {"server": {"port": 2}})
    assert tomllib.loads(to_toml(table)) == table
    assert folder == tmp_path
    assert table["server"] == {"port": 2, "cors_origins": ["*"]}
    assert table["engines"]["main"] == {"env": {"X": "1"}, "kind": "vllm", "model": str(ROOT / "demo/hybrid")}
    assert table["routes"]["mine"]["names"] == ["other"]
    assert table["routes"]["mine"]["mode"] == "no_think"


def test_a_model_is_named_after_its_folder_and_a_hub_name_is_known_whole_too():
    here, _ = table_of(str(ROOT / "demo/hybrid"))
    assert here["routes"] == {"hybrid": {"engine": "main", "family": "auto"}}
    assert parse_table(*table_of("some/Model")).routes["Model"].names == ("some/Model",)
    assert parse_table(*table_of("some/Model", ["mine"])).routes["mine"].names == ()


def test_the_folder_of_a_training_run_says_itself_what_it_is(tmp_path):
    from training.run_artifacts import write_route

    run = tmp_path / "my_run"
    shutil.copytree(ROOT / "demo/hybrid", run)
    write_route(run, "lhrm")
    table, _ = table_of(str(run), ["mine"])
    assert table["routes"] == {"mine": {"engine": "my_run", "family": "lhrm", "names": []}}
    assert table["engines"] == {"my_run": {"kind": "vllm", "model": str(run)}}
    (run / "reasond.toml").write_text((run / "reasond.toml").read_text() + '[routes.two]\nengine = "my_run"\n')
    with pytest.raises(ConfigError, match=r"^--served-model-name: 2 routes are there, and it speaks of one$"):
        table_of(str(run), ["mine"])
    assert len(table_of(str(run))[0]["routes"]) == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--max-model-lenn", "8"], r"^--max-model-lenn: neither reasond nor .* \(similar ones: .*--max-model-len"),
        (["--max-model-len", "many"], r"^--max-model-len: .*many"),
        (["--dtype", "int3"], r"^--dtype: invalid choice: 'int3'"),
        (["--speculative-config", "{"], r"^--speculative-config/-sc: "),
        (["--model", "other"], r"^--model: the model stands first"),
        (["nonsense"], r"^unrecognized arguments: nonsense$"),
    ],
)
def test_a_flag_that_vllm_does_not_take_is_one_line(flags, told, capsys):
    assert main(["serve", "some/model", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line), line


def test_flags_that_have_no_place_are_refused(tmp_path, capsys):
    file = tmp_path / "x.toml"
    file.write_text("")
    assert main(["serve", str(file), "--dtype", "auto"]) == 2
    assert capsys.readouterr().err == f"{file}: a file says all of this itself: --dtype auto\n"
    with pytest.raises(SystemExit):
        main(["families", "--nonsense"])


def test_what_reasond_finds_out_itself_is_left_out_and_told(capsys):
    assert main(["serve", "some/model", "--reasoning-parser", "qwen3", "--print-config"]) == 0
    printed = capsys.readouterr()
    assert "--reasoning-parser: left out" in printed.err
    assert "args" not in tomllib.loads(printed.out)["engines"]["main"]


def test_tables_are_merged_as_deep_as_both_are_tables():
    assert merged({"a": {"b": 1, "c": {"d": 2}}, "e": {}}, {"a": {"c": {"f": 3}}, "e": 4}) == {
        "a": {"b": 1, "c": {"d": 2, "f": 3}},
        "e": 4,
    }


def test_a_model_that_is_there_is_checked_without_loading_it(qwen3, capsys):
    assert main(["check", str(qwen3), "--kv-cache-memory-bytes", "1M"]) == 0
    assert capsys.readouterr().out.splitlines()[-7:] == [  # vLLM writes to what pytest has put in the place of stdout
        "routes.Qwen3-0.6B:",
        "  family   qwen3: its tags stand in the template, and reads the template's thinking and calls",
        "  modes    think, no_think (default think)",
        "  efforts  as budgets: minimal 128, low 1024, medium 2048, high 4096, xhigh 8192, max 16384",
        "  budgets  in tokens of the thinking, ended gracefully",
        "  tools    json, constrained by a grammar",
        "engines.main: weights 18.69 MiB, cache 256 bytes a token; "
        f"1 MiB of cache hold 4096 tokens, {4096 / CONTEXT:.1f} full contexts",
    ]


def test_a_model_that_chooses_its_mode_is_told_so(capsys):
    assert main(["check", "demo/hybrid", "--max-model-len", "512"]) == 0
    told = capsys.readouterr().out
    assert "  family   lhrm: its tags are tokens" in told
    assert "  modes    think, no_think, auto (default auto)" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_position_embeddings": 16}, r"^engines\.main: .*2048.*16"),
        ({"model_type": "sphinx", "architectures": ["SphinxForCausalLM"]}, r"^engines\.main: .*sphinx"),
        ({"weights": None}, r"^engines\.main\.model: .* has no weights \(\*\.safetensors\)$"),
        ({"template": "{{ messages[0].content }}<think>"}, r"^routes\.model\.family: none fits"),
        ({"template": None}, r"^routes\.model\.family: the model has no chat template"),
    ],
)
def test_what_would_be_refused_is_one_line_and_status_2(qwen3, tmp_path, capsys, change, told):
    folder = tmp_path / "model"
    shutil.copytree(qwen3, folder)
    if "weights" in change:
        (folder / "model.safetensors").unlink()
    elif (template := change.get("template", "")) != "":
        (folder / "chat_template.jinja").unlink()
        if template:
            (folder / "chat_template.jinja").write_text(template)
    else:
        change_config(folder, **change)
    assert main(["check", str(folder), "--max-model-len", "2048"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert re.search(told, line), line


def test_a_family_that_is_named_is_proved_too(qwen3, tmp_path, capsys):
    file = tmp_path / "settings.toml"
    engine = f'[engines.main]\nkind = "scripted"\nmodel = "{qwen3}"\n'
    file.write_text(engine + '[routes.it]\nengine = "main"\nfamily = "gpt_oss"\n')
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err.startswith("routes.it.family: 'gpt_oss' does not fit engine 'main': ")


def test_the_families_are_listed(capsys):
    assert main(["families"]) == 0
    told = capsys.readouterr().out
    assert "qwen3.5         think, no_think       low, medium, high           qwen_xml" in told
