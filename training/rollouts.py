"""A policy that learns from its own replies, on TRL's GRPO trainer: what HGPO, SelfBudgeter and GRPO share."""

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig

from training import trainer
from training.config import Rollouts
from training.samplers import sampler_of
from training.tasks import TASKS, draw_many
from training.trl_seam import SampledTrainer


def train(
    config: Rollouts, resume: bool, parts: Callable[[Any], dict[str, Any]], trainer_class: type[Any] = SampledTrainer
) -> None:
    """Runs the recipe and writes the model to `config.run.out`. Under `accelerate launch`, on every device.

    `parts` makes, from the tokenizer, what is each method's own of the trainer's arguments: the rewards, the questions.
    """
    with sampler_of(config) as sampler:
        trainer.fit(config, resume, trainer_class, arguments(config), lambda it: {"sampler": sampler, **parts(it)})


def questions(config: Rollouts) -> Dataset:
    """One row a question, `steps` x `questions` rows: `prompt` (messages) and `question` (text)."""
    task, rng = TASKS[config.task.name], Random(config.run.seed + 1)
    drawn = draw_many(task, config.task.difficulties, config.steps * config.questions, "train", rng)
    return Dataset.from_list([{"prompt": [{"role": "user", "content": q.text}], "question": q.text} for q in drawn])


def arguments(config: Rollouts) -> GRPOConfig:
    """TRL's settings for a recipe: one update per batch of replies, so that the policy is its own old policy."""
    run, optimizer = config.run, config.optimizer
    on_cpu = not torch.cuda.is_available()
    base = GRPOConfig(output_dir=str(run.out / "checkpoints"), report_to="none", bf16=False, use_cpu=on_cpu)
    if config.generation == "engine" and base.world_size > 1:
        raise ValueError('generation = "engine" is for one process')
    by_vllm = config.generation in ("colocate", "server")
    accumulation, left = divmod(config.questions * config.replies, config.micro_batch * base.world_size)
    if left:
        raise ValueError("questions x replies must divide into micro_batch x devices")
    return GRPOConfig(
        output_dir=str(run.out / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=accumulation,
        num_generations=config.replies,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        top_p=1.0,
        loss_type="dapo",
        epsilon=config.epsilon,
        beta=config.beta,
        sync_ref_model=config.beta > 0,
        learning_rate=optimizer.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=optimizer.warmup,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        weight_decay=optimizer.weight_decay,
        use_vllm=by_vllm,
        vllm_mode=config.generation if by_vllm else "colocate",
        gradient_checkpointing=not on_cpu and (by_vllm or config.generation == "engine"),
        bf16=config.model.dtype == "bfloat16",
        use_cpu=on_cpu,
        logging_steps=run.log_every,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=run.seed,
    )
