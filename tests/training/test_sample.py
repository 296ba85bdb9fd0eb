"""`method = "sample"`: replies of a route or a model are kept with their scores; it goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.server.conftest import ROOT
from tests.training.conftest import TASK
from tests.training.served import serving
from training import cli
from training.algorithms import METHODS
from training.config.sections import SampleRecipe
from training.data.errors import UserError
from training.data.samples import read_samples

TIMES = ("first", "answer", "seconds")
ROUTE = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
replies = ["x"]

[routes.demo]
engine = "demo"
family = "lhrm"
"""


class Writer:
    """Answers 5 or, when it thinks, 6; refuses from the request number `breaks` on, and keeps what it was asked."""

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self.tokenizer, self.breaks, self.seeds = tokenizer, 10**9, list[int]()

    def __call__(self, prompt, sampling):
        self.seeds.append(sampling.seed)
        if len(self.seeds) > self.breaks:
            raise RuntimeError("the engine broke")
        last = self.tokenizer.decode(prompt.token_ids[-1:], skip_special_tokens=False)
        return {"<think>": "a+1=6</think>6", "<no_think>": "5</no_think>"}.get(last, "<no_think>5</no_think>")


@pytest.fixture
def writer():
    return Writer(HubTokenizer("demo/tokenizer"))


@pytest.fixture
def url(writer, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "")
    engine = ScriptedEngine(writer.tokenizer, writer, name="demo", context_length=512)
    with serving(create_app(parse_config(ROUTE, ROOT), {"demo": engine}), ROUTE) as address:
        yield address


def recipe(tmp_path: Path, url: str, **more: object) -> SampleRecipe:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": str(i)}) + "\n" for i in range(8)))
    shared = {"data": {"file": str(file), "test_share": 0}, "out": str(tmp_path / "samples.jsonl")}
    route = {"url": url, "model": "demo", "retries": 0, "concurrency": 3}
    return SampleRecipe.parse({**shared, "questions": 8, "route": route, "max_new_tokens": 32, **more})


def run(one: SampleRecipe, resume: bool = False) -> str:
    return METHODS["sample"].load()(one, resume)


def timeless(line: str) -> dict[str, Any]:
    row = json.loads(line)
    return row | {"served": {name: value for name, value in row["served"].items() if name not in TIMES}}


def test_a_route_is_asked_in_each_mode_as_often_as_the_recipe_says(tmp_path, url, writer):
    one = recipe(tmp_path, url, modes=["think", "no_think"], samples=2)
    assert run(one) == f"{one.out}: 32 replies, 4 right"
    kept = read_samples(one.out)
    assert [reply.asked for reply in kept[:4]] == ["think", "think", "no_think", "no_think"]
    assert all(reply.mode == reply.asked and reply.complete for reply in kept)
    assert {(reply.asked, reply.thinking, reply.reply) for reply in kept} == {
        ("think", "a+1=6", "6"),
        ("no_think", "", "5"),
    }
    assert {reply.question.text for reply in kept if reply.right} == {"5?", "6?"}
    assert all(reply.tokens > 0 for reply in kept)
    assert len(set(writer.seeds)) == 32, "every reply has a seed of its own"


def test_a_free_route_tells_the_mode_that_it_took(tmp_path, url):
    one = recipe(tmp_path, url)
    run(one)
    assert {(reply.asked, reply.mode) for reply in read_samples(one.out)} == {(None, "no_think")}


def test_a_route_is_asked_at_each_budget(tmp_path, url):
    one = recipe(tmp_path, url, budgets=[8, 16], questions=2)
    run(one)
    assert [reply.budget for reply in read_samples(one.out)] == [8, 16, 8, 16]


def test_what_was_broken_off_goes_on_behind_its_last_whole_question_with_the_same_seeds(tmp_path, url, writer):
    one = recipe(tmp_path, url, modes=["think", "no_think"])
    run(one)
    whole, seeds = one.out.read_text().splitlines(), list(writer.seeds)
    lines = [f"{line}\n" for line in whole]
    one.out.write_text("".join(lines[:5]) + lines[5][:10])
    writer.seeds.clear()
    run(one, resume=True)
    assert [timeless(line) for line in one.out.read_text().splitlines()] == [timeless(line) for line in whole]
    assert sorted(writer.seeds) == sorted(seeds[4:])


def test_a_route_that_fails_ends_the_run_in_a_line_and_what_was_drawn_stays(tmp_path, url, writer, capsys):
    writer.breaks = 3
    one = recipe(tmp_path, url, route={"url": url, "model": "demo", "retries": 0, "concurrency": 1})
    with pytest.raises(UserError, match="route demo at http"):
        run(one)
    assert len(read_samples(one.out)) <= 3
    writer.breaks = 10**9
    run(one, resume=True)
    assert len(read_samples(one.out)) == 8


def test_a_run_without_a_reply_leaves_an_earlier_file_as_it_was(tmp_path, url, writer):
    one = recipe(tmp_path, url)
    run(one)
    before, writer.breaks = one.out.read_text(), 0
    with pytest.raises(UserError, match="route demo at http"):
        run(one)
    assert one.out.read_text() == before


def test_another_recipes_file_is_not_gone_on_with(tmp_path, url):
    one = recipe(tmp_path, url)
    run(one)
    lines = one.out.read_text().splitlines(keepends=True)
    one.out.write_text("".join(reversed(lines)))
    with pytest.raises(UserError, match="another recipe"):
        run(one, resume=True)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"route": {"url": "http://127.0.0.1:9", "model": "demo", "retries": 0}}, "ConnectError"),
        ({"model_name": "nobody"}, "404"),
    ],
)
def test_a_route_that_cannot_be_asked_is_told_in_a_line(tmp_path, url, change, wrong):
    if "model_name" in change:
        change = {"route": {"url": url, "model": change["model_name"], "retries": 0}}
    with pytest.raises(UserError, match=wrong):
        run(recipe(tmp_path, url, **change))


def test_a_model_is_sampled_in_both_modes(tmp_path):
    settings = {"model": {"path": "demo/hybrid"}, "data": TASK, "out": str(tmp_path / "s.jsonl"), "questions": 4}
    one = SampleRecipe.parse({**settings, "modes": ["think", "no_think"], "max_new_tokens": 24, "batch": 4})
    run(one)
    kept = read_samples(one.out)
    assert [reply.asked for reply in kept] == ["think", "no_think"] * 4
    assert sum(reply.right for reply in kept) >= 4, "the demo model answers chains of one and two steps"
    assert all(reply.thinking for reply in kept if reply.mode == "think")


def test_either_a_model_or_a_route(tmp_path, url):
    with pytest.raises(UserError, match="either a model or a route"):
        recipe(tmp_path, url, model={"path": "demo/hybrid"})
    with pytest.raises(UserError, match="batch is not read"):
        recipe(tmp_path, url, batch=4)


def test_the_command_line_goes_on_too(tmp_path, url, capsys):
    file = tmp_path / "sample.toml"
    one = recipe(tmp_path, url)
    file.write_text(
        f'method = "sample"\nout = "{one.out}"\nquestions = 8\n[data]\nfile = "{one.data.file}"\ntest_share = 0\n'
        f'[route]\nurl = "{url}"\nmodel = "demo"\n'
    )
    assert cli.main([str(file)]) == 0
    assert cli.main([str(file), "--resume"]) == 0
    assert capsys.readouterr().out.count("8 replies, 1 right") == 2


def test_samples_are_questions_too(tmp_path, url):
    from training.data.files import read_file

    one = recipe(tmp_path, url)
    run(one)
    assert [(q.text, q.answer) for q in read_file(one.out, {}, {})] == [
        (reply.question.text, reply.question.answer) for reply in read_samples(one.out)
    ]


def test_a_line_that_sample_did_not_write_is_named(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(UserError, match=r"s\.jsonl:1: not what `sample` writes"):
        read_samples(tmp_path / "s.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(tmp_path / "nowhere.jsonl")
