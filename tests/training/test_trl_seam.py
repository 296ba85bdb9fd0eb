"""The contract with TRL's private methods: if this fails after an upgrade, `training/trl_seam.py` must change."""

import inspect
import math

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from models.text.tokenizer import HubTokenizer
from training import hgpo, rollouts, weights
from training.replies import MODES, format_of
from training.trl_seam import ForcedPrefixTrainer, unless_settled


def form():
    return format_of("lhrm", HubTokenizer("demo/tokenizer"))


def build(recipe, mode_ratio="on_policy", prefixes=None, token_advantages=None, render=None):
    tokenizer = weights.load_tokenizer(recipe.model)
    return ForcedPrefixTrainer(
        model=weights.load_model(recipe.model, tokenizer, 0),
        reward_funcs=hgpo.reward_function(recipe, form()),
        args=rollouts.arguments(recipe),
        train_dataset=rollouts.questions(recipe),
        processing_class=tokenizer,
        prefixes=prefixes or [form().pairs[mode][:1] for mode in MODES],
        token_advantages=token_advantages or (lambda rewards, mask: mask.float()),
        mode_ratio=mode_ratio,
        render=render,
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
    tokenizer = form().tokenizer
    task = hgpo_recipe.task.model_copy(update={"name": "judging"})
    trainer = build(hgpo_recipe.model_copy(update={"task": task}), render=tokenizer.render)
    inputs = batch(trainer)
    prompts = trainer._generate_and_score_completions(inputs)["prompt_ids"]
    served = tokenizer.render([{"role": "user", "content": inputs[0]["question"]}])
    assert prompts[0].tolist()[-len(served) :] == served
    assert tokenizer.control_id("\\boxed{Assistant 1}") not in served


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
    tokenizer = weights.load_tokenizer(hgpo_recipe.model)
    prefixes = [tokenizer.encode(text, add_special_tokens=False) for text in ("<think>2", "<no_think>")]
    assert [len(prefix) for prefix in prefixes] == [2, 1]
    trainer = build(hgpo_recipe, prefixes=prefixes)
    output = trainer._generate_and_score_completions(batch(trainer))
    assert output["tool_mask"][:, 1].tolist() == [0, 0, 1, 1] * 2
    assert output["tool_mask"][:, 0].all()


def test_a_missing_reward_is_an_error(hgpo_recipe):
    trainer = build(hgpo_recipe)
    trainer.reward_funcs = [lambda completion_ids, **_: [None] * len(completion_ids)]
    with pytest.raises(ValueError, match="no reward"):
        trainer._generate_and_score_completions(batch(trainer))


def test_replies_that_do_not_divide_into_modes_are_refused(hgpo_recipe):
    with pytest.raises(ValueError, match="do not divide"):
        build(hgpo_recipe, prefixes=[[1], [2], [3]])
