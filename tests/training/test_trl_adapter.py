"""The contract with TRL's private methods: if this fails after an upgrade, `training/trl_adapter.py` must change."""

import inspect
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from models.text.tokenizer import HubTokenizer
from tests.training.conftest import material
from training import runs, trl_adapter
from training.algorithms import hgpo
from training.config.sections import ModelSection
from training.data.errors import UserError
from training.data.replies import format_of
from training.trl_adapter import PolicyTrainer, unless_settled
from training.weights import store


def form():
    return format_of("lhrm", HubTokenizer("demo/tokenizer"))


def build(recipe, **changes):
    """The trainer of a recipe, with `changes` to its parts."""
    parts = hgpo.parts(recipe, material(recipe))
    tokenizer = store.load_tokenizer(recipe.model)
    flat = {"advantages": lambda rewards, mask: mask.float()}
    parts = replace(parts, **{**flat, **changes})
    return PolicyTrainer(
        model=store.load_model(recipe.model, tokenizer, 0),
        args=runs.policy_arguments(recipe),
        train_dataset=trl_adapter.prompts(parts),
        processing_class=tokenizer,
        parts=parts,
        settings=recipe.optimizer,
        fused_head=recipe.fused_head,
    )


def batch(trainer):
    """What the trainer's data loader hands over: each question once for every reply."""
    return next(iter(trainer.get_train_dataloader()))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (
            "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        ("_tokenize_prompts", ["self", "prompts"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
    ],
)
def test_the_methods_that_the_seam_overrides_take_what_it_expects(method, parameters):
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters


def test_log_probabilities_are_asked_for_in_the_order_the_seam_uses():
    names = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert names[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]


def test_each_half_of_a_group_begins_with_its_mode_token(hgpo_recipe):
    trainer = build(hgpo_recipe)
    output = trainer._generate_and_score_completions(batch(trainer))
    think, no_think = (prefix[0] for prefix in trainer.prefixes)
    assert output["completion_ids"][:, 0].tolist() == [think, think, no_think, no_think] * 2


def test_prompts_are_rendered_as_they_are_served(hgpo_recipe):
    data = hgpo_recipe.data.model_copy(update={"task": "demo.tasks.judging:Judging"})
    trainer = build(hgpo_recipe.model_copy(update={"data": data}))
    inputs = batch(trainer)
    prompts = trainer._generate_and_score_completions(inputs)["prompt_ids"]
    tokenizer = form().tokenizer
    served = tokenizer.render([{"role": "user", "content": inputs[0]["prompt"][0]["content"]}])
    assert prompts[0].tolist()[-len(served) :] == served


def test_prompts_of_a_group_are_equal_and_hold_no_mode_token(hgpo_recipe):
    trainer = build(hgpo_recipe)
    prompts = trainer._generate_and_score_completions(batch(trainer))["prompt_ids"]
    assert (prompts[:4] == prompts[0]).all()
    assert not torch.isin(prompts, torch.tensor(trainer.prefixes)).any()


def test_the_batch_by_tokens_advantages_reach_the_loss(hgpo_recipe):
    trainer = build(hgpo_recipe)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    mask = inputs["completion_mask"]
    # Ratio 1 everywhere: the dapo loss is minus the mean advantage over the tokens of the batch.
    trainer.current_gradient_accumulation_steps = 1
    for advantages in (mask.float(), torch.zeros(mask.shape).index_fill(1, torch.tensor([0]), 2.0)):
        inputs["advantages"] = advantages
        loss = trainer._compute_loss(trainer.model, inputs)
        assert_close(loss, -(advantages * mask).sum() / mask.sum(), atol=1e-6, rtol=1e-4)


def test_the_mode_token_has_a_gradient_though_it_was_forced(hgpo_recipe):
    trainer = build(hgpo_recipe)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    inputs["advantages"] = torch.zeros(inputs["completion_mask"].shape)
    inputs["advantages"][:2, 0] = 1.0  # the think replies of the first question
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, inputs).backward()
    embedding = trainer.model.get_input_embeddings().weight.grad  # tied: the output row of <think>
    assert embedding[trainer.prefixes[0][0]].norm() > 0


def test_half_takes_one_half_as_the_old_probability_of_the_mode_token_alone(hgpo_recipe):
    trainer = build(hgpo_recipe, mode_ratio="half")
    inputs = trainer._generate_and_score_completions(batch(trainer))
    old = inputs["old_per_token_logps"]
    assert_close(old[:, 0], torch.full((8,), math.log(0.5)))
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, old.shape[1])[0]
    assert_close(old[:, 1:], now[:, 1:])


def test_a_mode_token_that_is_where_it_is_pushed_is_left_alone():
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    probability = torch.tensor([0.97, 0.99, 0.03, 0.01])
    assert unless_settled(advantages, probability, 0.98).tolist() == [1, 0, -1, 0]
    assert unless_settled(advantages, probability, 1.0).tolist() == [1, 1, -1, -1]


def test_the_rest_of_a_longer_prefix_is_masked(hgpo_recipe):
    tokenizer = store.load_tokenizer(hgpo_recipe.model)
    prefixes = [tokenizer.encode(text, add_special_tokens=False) for text in ("<think>2", "<no_think>")]
    assert [len(prefix) for prefix in prefixes] == [2, 1]
    trainer = build(hgpo_recipe, prefixes=prefixes)
    output = trainer._generate_and_score_completions(batch(trainer))
    assert output["tool_mask"][:, 1].tolist() == [0, 0, 1, 1] * 2
    assert output["tool_mask"][:, 0].all()


def test_a_mode_token_further_in_is_learned_and_the_rest_of_its_prefix_is_not(hgpo_recipe):
    recipe = hgpo_recipe.model_copy(update={"model": hgpo_recipe.model.model_copy(update={"family": "qwen3"})})
    trainer = build(recipe, mode_ratio="half")
    output = trainer._generate_and_score_completions(batch(trainer))
    think, no_think = trainer.prefixes
    assert output["completion_ids"][0, : len(think)].tolist() == think
    assert output["completion_ids"][2, : len(no_think)].tolist() == no_think
    assert output["tool_mask"][0, : len(think)].tolist() == [0, 1]
    assert output["tool_mask"][2, : len(no_think)].tolist() == [0, 1, *[0] * (len(no_think) - 2)]
    assert_close(output["old_per_token_logps"][:, 1], torch.full((8,), math.log(0.5)))


def test_without_a_mode_position_the_whole_prefix_is_masked(hgpo_recipe):
    trainer = build(hgpo_recipe, prefixes=[form().prefixes["think"]], mode_position=None, advantages=None)
    output = trainer._generate_and_score_completions(batch(trainer))
    assert output["advantages"].ndim == 1
    assert not output["tool_mask"][:, 0].any()
    assert output["tool_mask"][:, 1:].all()


def test_a_missing_reward_is_an_error(hgpo_recipe):
    trainer = build(hgpo_recipe, reward=lambda replies, progress, log: [math.nan] * len(replies))
    with pytest.raises(UserError, match="no reward"):
        trainer._generate_and_score_completions(batch(trainer))


def test_replies_that_do_not_divide_into_modes_are_refused(hgpo_recipe):
    with pytest.raises(UserError, match="do not divide"):
        build(hgpo_recipe, prefixes=[[1], [2], [3]])


@pytest.mark.parametrize("fused_head", [True, False])
@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["full", "lora"])
def test_the_reference_is_what_the_policy_was_with_its_trained_token_rows(hgpo_recipe, lora, fused_head):
    model = ModelSection.model_validate({"path": "demo/hybrid", "lora": lora})
    settings = {"model": model, "beta": 0.1, "fused_head": fused_head}
    trainer = build(hgpo_recipe.model_copy(update=settings))
    inputs = trainer._generate_and_score_completions(batch(trainer))
    with torch.no_grad():
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        length = inputs["completion_ids"].shape[1]

        def now() -> torch.Tensor:
            return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length)[0]

        kept = inputs["completion_mask"].bool()
        assert_close(inputs["ref_per_token_logps"][kept], now()[kept], atol=1e-4, rtol=1e-3)
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
        assert not torch.allclose(inputs["ref_per_token_logps"][kept], now()[kept], atol=1e-2)
        again = trainer._get_per_token_logps_and_entropies(trainer.ref_model, ids, mask, length)[0]
        assert_close(inputs["ref_per_token_logps"][kept], again[kept], atol=1e-5, rtol=1e-4)
