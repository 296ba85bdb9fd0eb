"""Reward clients of other people, each in an environment of its own, against a judge behind a key."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.environments import environment
from tests.judging import Reader, boxed, larger_number
from tests.wire.served import ROOT, served

pytestmark = pytest.mark.accept

HERE = Path(__file__).parent
KEY = "rsk-clients"
REWARDBENCH_MODEL = "gpt-4-0613"  # RewardBench asks only models whose names it knows
SETTINGS = f"""
[server]
port = 0
drain_seconds = 1

[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.judge]
engine = "demo"
family = "lhrm"
controller = "judge"

[routes."{REWARDBENCH_MODEL}"]
engine = "demo"
family = "lhrm"
controller = "judge"
"""


@pytest.fixture
def reader(tokenizer) -> Reader:
    return Reader(
        tokenizer, larger_number, lambda reply, against: boxed("Correct" if reply == against else "Incorrect")
    )


@pytest.fixture
def url(tokenizer, reader, monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("REASOND_API_KEYS", KEY)
    with served(tokenizer, reader, SETTINGS, context_length=4096) as server:
        yield server.url
        assert server.until_idle() == 0


def ran(command, **environ: str) -> str:
    """What a program printed that ended well, with nothing of ours on its path."""
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REASOND_API_KEYS")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=known | environ, cwd=environ.get("PWD"), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_verifiers_reference_judge_gets_its_rewards(url, reader):
    programs = environment("verifiers", ["verifiers==0.4.0"])
    printed = ran([programs / "python", HERE / "verifiers_client.py", url], JUDGE_KEY=KEY, WRONG_KEY="rsk-other")
    assert json.loads(printed) == {
        "worded": [1.0, 0.0, 1.0],
        "lettered": [1.0, 0.0],
        "wrong key": 401,
        "wrong model": 404,
    }
    assert sorted(reader.asked) == [("3", "8")] * 2 + [("8", "8")] * 3


@pytest.mark.parametrize(("chosen", "rejected", "accuracy"), [(50, 10, 1.0), (10, 50, 0.0)])
def test_rewardbench_scores_the_judge_on_a_file_of_pairs(url, reader, tmp_path, chosen, rejected, accuracy):
    programs = environment(
        "rewardbench",
        ["torch==2.13.0"],
        ["--no-deps", "rewardbench==0.1.4", "fschat==0.2.36"],  # they name much that an API judge does not need
        # what the program imports on the way to an API judge
        *[["transformers==4.51.0", "trl<0.18", "datasets", "pandas", "tabulate", "tiktoken", "sentencepiece"]],
        ["openai", "anthropic", "google-generativeai", "together", "requests", "rich"],
    )
    data = tmp_path / "allenai/reward-bench/data"  # where a dataset of that name is looked for first
    data.mkdir(parents=True)
    pairs = [
        {
            "id": i,
            "prompt": "Which number is larger?",
            "chosen": str(chosen + i),
            "rejected": str(rejected + i),
            "chosen_model": "a",
            "rejected_model": "b",
            "subset": ("alpacaeval-easy", "math-prm")[i % 2],
        }
        for i in range(8)
    ]
    (data / "filtered-00000-of-00001.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    printed = ran(
        [programs / "rewardbench-gen", "--model", REWARDBENCH_MODEL, "--do_not_save"],
        PWD=str(tmp_path),
        HF_HOME=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="1",
        OPENAI_BASE_URL=f"{url}/v1",
        OPENAI_API_KEY=KEY,
    )
    found = re.findall(r"^(\S+): (\S+)/4 \((\S+)\)$", printed, re.MULTILINE)
    assert [(subset, float(share)) for subset, _, share in found] == [
        ("alpacaeval-easy", accuracy),
        ("math-prm", accuracy),
    ]
    assert {tuple(sorted(asked)) for asked in reader.asked} == {
        tuple(sorted((pair["chosen"], pair["rejected"]))) for pair in pairs
    }


def test_openrlhfs_rollouts_get_their_rewards_over_urls_that_carry_the_key(url, reader):
    programs = environment(
        "openrlhf",
        ["torch==2.13.0"],
        ["--no-deps", "openrlhf==0.11.2"],  # it names much that only training needs
        ["transformers", "sympy", "pylatexenc", "aiohttp", "numpy"],
    )
    with_key = url.replace("http://", f"http://key:{KEY}@")
    tokenizer = ROOT / "demo/tokenizer"
    endpoints = [f"{with_key}/get_reward", f"{with_key}/get_reward?votes=3"]  # it takes them in turn
    printed = ran([programs / "python", HERE / "openrlhf_client.py", tokenizer, *endpoints])
    rewards = json.loads(printed.splitlines()[-1])
    assert rewards == [{"reward": [one], "scores": [one], "extra_logs": {}} for one in (1.0, 0.0, 1.0)]
    assert sorted(set(reader.asked)) == [("3", "8"), ("8", "8")], "closed thinking is taken off, so is the template"
    assert len(reader.asked) == 1 + 3 + 1 - 1, "the third asks again what the first did, for one vote: remembered"


def test_coheres_client_reranks(url):
    programs = environment("cohere", ["cohere==7.3.1"])
    told = json.loads(ran([programs / "python", HERE / "cohere_client.py", url, KEY]))
    (first, best), (second, middle), (third, worst) = told["v2"]
    assert (first, second, third) == (1, 2, 0)
    assert 1 > best > middle > worst > 0
    assert told["v2 best"] == told["v2"][:1]
    assert told["v1"] == told["v2"]
    assert (told["wrong key"], told["one document"]) == (401, 400)
