"""`method = "calibrate"`: a served route is asked over HTTP, and what comes of it is what its server then reads."""

import json
import math
from pathlib import Path

import pytest

from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.server.conftest import ROOT
from tests.training.served import serving
from training import cli
from training.config.sections import CalibrateRecipe
from training.data.errors import UserError
from training.data.samples import read_samples
from training.evaluation import calibrate
from training.evaluation.plots import pareto

COUNT = 100
EASY = 10  # questions below this are answered at once
ROUTES = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.asked]
engine = "demo"
family = "qwen3"
auto = { decider = "ask" }

[routes.hinted]
engine = "demo"
family = "qwen3"
auto = { decider = "hint" }

[routes.drawn]
engine = "demo"
family = "qwen3"
auto = { decider = "random", rate = 0.5 }

[routes.drafted]
engine = "demo"
family = "qwen3"
auto = { decider = "draft", raw_threshold = 0.05 }

[routes.chained]
engine = "demo"
family = "qwen3"
[routes.chained.auto]
decider = "chain"
links = [{ decider = "ask" }, { decider = "draft", raw_threshold = 0.05 }]
unsure = [0, 1]

[routes.plain]
engine = "demo"
family = "qwen3"
"""


class Sure:
    """Always right when it thinks, and directly where a question is easy; asked, it knows which it is, but for every
    third one."""

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self.tokenizer, self.requests = tokenizer, 0

    def __call__(self, prompt, sampling):
        self.requests += 1
        text = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        number = int(text.partition("Add 1 to ")[2].split(".")[0])
        if sampling.logprob_token_ids:
            first, second = sampling.logprob_token_ids
            p_think = 0.2 + (number if number % 3 else EASY) / 200
            return ScriptedReply([first], logprobs={first: math.log(p_think), second: math.log(1 - p_think)})
        direct = "</think>" in text.rpartition("assistant\n")[2]
        if direct:
            return str(number + 1 if number < EASY else 0)
        return f"{number} 1{' and so on' * 5}</think>\n\n{number + 1}"


@pytest.fixture(scope="module")
def script():
    return Sure(HubTokenizer("demo/tokenizer"))


@pytest.fixture(scope="module")
def url(script):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REASOND_API_KEYS", "")
        engine = ScriptedEngine(script.tokenizer, script, name="demo", context_length=512)
        with serving(create_app(parse_config(ROUTES, ROOT), {"demo": engine}), ROUTES) as address:
            yield address


@pytest.fixture(scope="module")
def drawn(url, tmp_path_factory):
    """A folder with all replies, for tests of what is made of them."""
    folder = tmp_path_factory.mktemp("drawn")
    calibrated(recipe(folder, url))
    return folder


def recipe(tmp_path: Path, url: str, count: int = COUNT, **more: object) -> CalibrateRecipe:
    file = tmp_path / "questions.jsonl"
    rows = [{"prompt": f"Add 1 to {i % 20}. Number {i}.", "answer": str(i % 20 + 1)} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {
        "route": {"url": url, "model": "asked", "retries": 0},
        "data": {"file": str(file), "test_share": 0},
        "deciders": ["hinted", "drawn", "drafted"],
        "out": str(tmp_path / "calibration"),
        "questions": count,
        "samples": 1,
        "seed": 5,
        "max_new_tokens": 64,
        "resamples": 50,
        "max_loss": 0.1,
    }
    goal = {"max_loss": None} if {"price", "token_saving"} & more.keys() else {}
    return CalibrateRecipe.parse({name: value for name, value in (table | goal | more).items() if value is not None})


def calibrated(one: CalibrateRecipe, resume: bool = False) -> dict:
    calibrate.main(one, resume)
    return json.loads((one.out / "calibration.json").read_text())


def test_a_promise_is_kept_and_what_it_saves_is_told(drawn, url):
    found = calibrated(recipe(drawn, url), resume=True)
    own, ways = found["deciders"]["ask"], found["ways"]
    easy = 0.2 + EASY / 200
    assert 0 < own["threshold"] < 1
    assert {gain for score, gain in own["points"] if score < easy - 0.001} == {0.0}
    assert own["points"][-1][1] == 1.0
    assert own["promise"]["lost_when_reported"] <= 0.1
    assert own["promise"]["kept_in_splits"]["all_questions"] >= 95
    scored = {
        f"{name}{how}" for name, at in (("ask", " at 0.5"), ("draft", " at 0.05")) for how in (at, ", calibrated")
    }
    assert set(ways) == {"never", "always", "oracle", "hint", "random", *scored}
    calm, oracle = ways["ask, calibrated"], ways["oracle"]
    assert calm["accuracy"]["value"] >= 0.9
    assert calm["recovered"]["value"] == pytest.approx(1.0, abs=0.15)
    assert oracle["tokens"] < calm["tokens"] < ways["always"]["tokens"]
    assert ways["ask at 0.5"]["think_rate"] == 0.0, "0.5 is beyond every score"
    assert ways["hint"]["think_rate"] == 1.0
    assert ways["draft at 0.05"]["tokens"] == pytest.approx(ways["always"]["tokens"] + ways["never"]["tokens"])
    assert 0 < ways["random"]["think_rate"] < 1
    assert abs(ways["random"]["over_chord"]) < 0.3
    assert own["curve"]["area"] > 0.05
    for way in ways.values():
        assert sum(way["shares"].values()) == pytest.approx(1.0)
        assert 0 < way["seconds_to_first"] <= way["seconds_to_answer"]
    assert ways["never"]["shares"]["missed"] == ways["always"]["shares"]["needed"] > 0
    assert oracle["shares"]["wasted"] == oracle["shares"]["missed"] == 0


def test_the_command_line_needs_no_file(tmp_path, url, capsys):
    one = recipe(tmp_path, url)
    settings = ["--set", f'route.url="{url}"', "--set", 'route.model="asked"', "--set", f'out="{one.out}"']
    settings += [
        "--set",
        f'data.file="{one.data.file}"',
        "--set",
        "data.test_share=0",
        "--set",
        "max_loss=0.1",
        "--set",
        "samples=1",
    ]
    assert cli.main(["calibrate", *settings, "--set", "questions=60", "--set", "max_new_tokens=64"]) == 0
    assert "| ask, calibrated |" in capsys.readouterr().out
    written = {path.name for path in one.out.iterdir()}
    assert written == {"calibration.json", "calibration.md", "calibration.png", "replies.jsonl", "served.json"}
    assert len(read_samples(one.out / "replies.jsonl")) == 60 * 3


def test_too_few_questions_always_think_and_say_so(drawn, url):
    found = calibrated(recipe(drawn, url, max_loss=0.02), resume=True)
    own = found["deciders"]["ask"]
    assert own["threshold"] == 0.0
    assert own["promise"]["always_thinks"].endswith("questions to choose on; 149 are the fewest")
    assert "it always thinks" in calibrate.table(found)
    assert found["ways"]["ask, calibrated"]["think_rate"] == 1.0


def test_a_saving_and_a_price_choose_other_thresholds(drawn, url):
    saving = calibrated(recipe(drawn, url, token_saving=0.3), resume=True)
    assert saving["ways"]["ask, calibrated"]["tokens"] <= 0.75 * saving["ways"]["always"]["tokens"]
    dear = calibrated(recipe(drawn, url, price=100.0), resume=True)
    cheap = calibrated(recipe(drawn, url, price=0.001), resume=True)
    assert dear["deciders"]["ask"]["threshold"] > cheap["deciders"]["ask"]["threshold"]
    assert dear["ways"]["ask, calibrated"]["tokens"] < cheap["ways"]["ask, calibrated"]["tokens"]
    assert cheap["ways"]["ask, calibrated"]["accuracy"]["value"] == 1.0


def test_it_goes_on_where_it_was_killed_and_asks_nothing_twice(drawn, url, script):
    one = recipe(drawn, url)
    whole = calibrated(one, resume=True)
    replies = one.out / "replies.jsonl"
    script.requests = 0
    lines = replies.read_text().splitlines(keepends=True)
    replies.write_text("".join(lines[: len(lines) // 2]) + lines[-1][:20])
    assert calibrated(one, resume=True)["deciders"]["ask"]["points"] == whole["deciders"]["ask"]["points"]
    assert 0 < script.requests <= len(lines) // 2 + COUNT // 2 + 5, "ask asks twice"


def test_what_is_gone_on_with_must_be_the_same_model(drawn, url):
    one = recipe(drawn, url)
    served = one.out / "served.json"
    card = json.loads(served.read_text())
    card["asked"]["fingerprint"]["model"] = "another"
    before = served.read_text()
    served.write_text(json.dumps(card))
    with pytest.raises(UserError, match="begin anew, without --resume"):
        calibrate.main(one, resume=True)
    served.write_text(before)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"deciders": ["nobody"]}, "no route 'nobody' with a decider"),
        ({"deciders": ["plain"]}, "no route 'plain' with a decider"),
        ({"route": {"url": "http://127.0.0.1:9", "model": "asked"}}, "cannot be asked for its routes"),
        ({"deciders": ["chained"]}, "a chain has no score of its own"),
        ({"price": 1.0, "token_saving": 0.5}, "one of max_loss, token_saving and price"),
        ({"price": 1.0, "confidence": 0.9}, "confidence is not read"),
    ],
)
def test_what_cannot_be_calibrated_is_told_in_a_line(tmp_path, url, change, wrong):
    with pytest.raises(UserError, match=wrong):
        calibrate.main(recipe(tmp_path, url, **change))


def test_without_a_goal_routes_are_compared_as_they_are_served(tmp_path, url):
    one = recipe(tmp_path, url, max_loss=None, deciders=["drafted", "chained"])
    calibrate.main(one)
    ways = json.loads((one.out / "comparison.json").read_text())["ways"]
    assert set(ways) == {"never", "always", "oracle", "asked", "drafted", "chained"}
    assert ways["asked"]["think_rate"] == 0.0, "0.5 is beyond every score"
    both = ways["always"]["tokens"] + ways["never"]["tokens"]
    assert ways["drafted"]["tokens"] == pytest.approx(both), "every draft was thrown away, and is told"
    assert ways["drafted"]["accuracy"]["value"] == ways["always"]["accuracy"]["value"]
    assert ways["chained"]["tokens"] == pytest.approx(both + 1), "asked, then drafted"


def test_the_front_holds_what_no_other_beats():
    assert pareto({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9), "d": (3, 0.8)}) == [(1, 0.5), (3, 0.9)]
