"""Replies from a merged copy and from our engine: those of the model as it is at the moment."""

import asyncio
import os
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.processes import session_seconds
from tests.training.test_runs import metrics
from training import runs
from training.config.sections import ModelSection
from training.sampling.batches import sample
from training.sampling.policy import EngineSampler, sampler_of
from training.weights import store

GREEDY = 0.01
"""A temperature that leaves hardly a choice; vLLM knows no lower one but 0."""
PROMPTS = [list(range(5, 75)), list(range(40, 52)), list(range(5, 20))]
"""The first holds more than a block of the prefix cache."""


def greedy(model, end):
    return sample(model.eval(), PROMPTS, end, max_new_tokens=12, temperature=0.0, batch=4)


@pytest.mark.parametrize(
    "generation", ["merged", pytest.param("engine", marks=pytest.mark.e2e)], ids=["merged", "engine"]
)
def test_a_sampler_follows_the_weights(hgpo_recipe, generation):
    """Its replies are the model's own, before and after the weights have changed, the tied head's among them."""
    recipe = hgpo_recipe.model_copy(
        update={
            "model": ModelSection(path="demo/hybrid"),
            "generation": generation,
            "temperature": GREEDY,
            "max_new_tokens": 12,
            "engine": {"max_model_len": 128, "max_num_seqs": 8, "block_size": 32} if generation == "engine" else {},
        }
    )
    torch.manual_seed(0)
    end = store.load_tokenizer(recipe.model).eos_token_id
    first, second = (AutoModelForCausalLM.from_pretrained(f"demo/{name}", dtype=torch.float32) for name in DEMOS)
    assert greedy(first, end) != greedy(second, end)
    with sampler_of(recipe) as sampler:
        for model in (first, second, first):
            assert sampler(model, PROMPTS) == greedy(model, end)


DEMOS = ("hybrid", "judge")


def test_the_engine_is_for_one_process(hgpo_recipe, monkeypatch):
    monkeypatch.setattr(runs.GRPOConfig, "world_size", 2)
    with pytest.raises(ValueError, match="for one process"):
        runs.policy_arguments(hgpo_recipe.model_copy(update={"generation": "engine"}))


def test_nobody_else_samples_for_the_trainer_itself(hgpo_recipe):
    with sampler_of(hgpo_recipe) as sampler:
        assert sampler is None


def test_a_reply_that_the_engine_has_no_room_for_is_refused(hgpo_recipe):
    recipe = hgpo_recipe.model_copy(update={"max_new_tokens": 60})
    sampler = EngineSampler(recipe)
    sampler.engine = Roomless()
    model = store.load_model(recipe.model, sampler.tokenizer, 0)
    with pytest.raises(ValueError, match="at least 130"):
        asyncio.run(sampler.sample(model, PROMPTS))


class Roomless:
    context_length = 128

    async def take_weights(self, folder):
        assert "model.safetensors" in os.listdir(folder)


@pytest.mark.e2e
def test_hgpo_learns_from_the_engines_replies_and_the_engine_ends_with_it_when_it_is_killed(tmp_path):
    settings = ["model.path=demo/hybrid", f"run.out={tmp_path}", "questions=2", "micro_batch=16", "generation=engine"]
    overrides = [part for one in [*settings, "settled=1.0", "steps=1000", "run.log_every=1"] for part in ("--set", one)]
    command = [sys.executable, "-m", "training.cli", "configs/train/hybrid_hgpo.toml", "--no-evaluate", *overrides]
    log = tmp_path / "metrics.jsonl"
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as run:
        wait_until(lambda: run.poll() is not None or (log.exists() and len(log.read_text().splitlines()) >= 3))
        run.kill()
    lines = metrics(tmp_path)
    assert any(line["reward"] > 0 for line in lines)
    assert any(line["grad_norm"] > 0 for line in lines)
    wait_until(lambda: session_seconds(run.pid) == 0)


def wait_until(condition, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
