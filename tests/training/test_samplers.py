"""Replies from a merged copy and from our engine: those of the model as it is at the moment."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.test_runs import metrics
from training import hgpo, rollouts, weights
from training.config import Model
from training.samplers import sampler_of
from training.sampling import sample

GREEDY = 1e-4
"""A temperature that leaves no choice, and is none to vLLM, which would take 0 for greedy and leave out the seed."""
PROMPTS = [list(range(5, 30)), list(range(40, 52)), list(range(5, 20))]


def greedy(model, end):
    return sample(model.eval(), PROMPTS, end, max_new_tokens=12, temperature=0.0, batch=4)


@pytest.mark.parametrize(
    "generation", ["merged", pytest.param("engine", marks=pytest.mark.e2e)], ids=["merged", "engine"]
)
def test_a_sampler_follows_the_weights(hgpo_recipe, generation):
    """Its replies are the model's own, before and after the weights have changed, the tied head's among them."""
    recipe = hgpo_recipe.model_copy(
        update={
            "model": Model(path="demo/hybrid"),
            "generation": generation,
            "temperature": GREEDY,
            "max_new_tokens": 12,
            "engine": {"max_model_len": 128, "max_num_seqs": 8, "dtype": "float32"},
        }
    )
    end = weights.load_tokenizer(recipe.model).eos_token_id
    first, second = (AutoModelForCausalLM.from_pretrained(f"demo/{name}", dtype=torch.float32) for name in DEMOS)
    assert greedy(first, end) != greedy(second, end)
    with sampler_of(recipe) as sampler:
        for model in (first, second, first):
            assert sampler(model, PROMPTS) == greedy(model, end)


DEMOS = ("hybrid", "judge")


@pytest.mark.e2e
def test_hgpo_learns_from_the_engines_replies(hgpo_recipe):
    recipe = hgpo_recipe.model_copy(
        update={"model": Model(path="demo/hybrid"), "generation": "engine", "engine": {"max_model_len": 128}}
    )
    hgpo.train(recipe)
    lines = [line for line in metrics(recipe.run.out) if "reward" in line]
    assert len(lines) == recipe.steps
    assert all(line["grad_norm"] > 0 for line in lines)


def test_the_engine_is_for_one_process(hgpo_recipe, monkeypatch):
    monkeypatch.setattr(rollouts.GRPOConfig, "world_size", 2)
    with pytest.raises(ValueError, match="for one process"):
        rollouts.arguments(hgpo_recipe.model_copy(update={"generation": "engine"}))


def test_nobody_else_samples_for_the_trainer_itself(hgpo_recipe):
    with sampler_of(hgpo_recipe) as sampler:
        assert sampler is None
