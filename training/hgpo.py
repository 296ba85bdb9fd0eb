"""Hybrid Group Policy Optimization (LHRM stage II, arXiv 2505.14631, Eq 5-12) on TRL's GRPO trainer.

A step: draw questions; sample N replies each, half of them behind each mode tag; reward them; give every token its
advantage (`advantages.py`); one clipped policy-gradient update. What touches TRL's inside is in `trl_seam.py`.
"""

from random import Random
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig

from models.tokenizer import HubTokenizer
from training import optimizers, runlog, weights
from training.advantages import Settings, token_advantages
from training.config import Hgpo, Rollouts
from training.replies import MODES, Format, format_of
from training.rewards import correctness
from training.tasks import TASKS, draw_many
from training.trl_seam import ForcedPrefixTrainer


def questions(config: Rollouts) -> Dataset:
    """One row a question, `steps` x `questions` rows: `prompt` (messages) and `question` (text)."""
    task, rng = TASKS[config.task.name], Random(config.run.seed + 1)
    drawn = draw_many(task, config.task.difficulties, config.steps * config.questions, "train", rng)
    return Dataset.from_list([{"prompt": [{"role": "user", "content": q.text}], "question": q.text} for q in drawn])


def reward_function(config: Hgpo, form: Format) -> Any:
    """TRL's face of `rewards.correctness`. Reads token ids: TRL's own text has lost the end of turn."""
    task = TASKS[config.task.name]

    def reward(completion_ids: list[list[int]], question: list[str], **_: Any) -> list[float]:
        asked = zip(completion_ids, question, strict=True)
        return [correctness(task, text, form.read(ids)) for ids, text in asked]

    return reward


def train(config: Hgpo, resume: bool = False) -> None:
    """Runs the recipe and writes the model to `config.run.out`. Under `accelerate launch`, on every device."""
    tokenizer = weights.load_tokenizer(config.model)
    model = weights.load_model(config.model, tokenizer, config.run.seed)
    metrics = runlog.begin(config.run.out, config, resume)
    tokenizer.save_pretrained(config.run.out)
    form = format_of(config.model.family, HubTokenizer(config.run.out))
    settings = Settings(**config.advantage.model_dump())
    optimizer = optimizers.build(model, config.optimizer) if config.model.lora is None else None

    def advantages(rewards: Tensor, mask: Tensor) -> Tensor:
        return token_advantages(rewards, mask, settings)

    trainer = ForcedPrefixTrainer(
        model=model,
        reward_funcs=reward_function(config, form),
        args=arguments(config),
        train_dataset=questions(config),
        processing_class=tokenizer,
        callbacks=[metrics],
        optimizers=(optimizer, optimizers.schedule(optimizer, config.steps, config.optimizer) if optimizer else None),
        peft_config=weights.lora(config.model.lora),
        prefixes=[form.pairs[mode][:1] for mode in MODES],
        render=form.tokenizer.render,
        token_advantages=advantages,
        mode_ratio=config.mode_ratio,
        settled=config.settled,
    )
    trainer.train(resume_from_checkpoint=resume or None)
    if trainer.is_world_process_zero():
        weights.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, config.run.out)


def arguments(config: Rollouts) -> GRPOConfig:
    """TRL's settings for a recipe: one update per batch of replies, so that the policy is its own old policy."""
    run, optimizer = config.run, config.optimizer
    base = GRPOConfig(output_dir=str(run.out / "checkpoints"), report_to="none", bf16=False)
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
        use_vllm=config.vllm != "no",
        vllm_mode=config.vllm if config.vllm != "no" else "colocate",
        gradient_checkpointing=config.vllm != "no",
        bf16=config.model.dtype == "bfloat16",
        logging_steps=run.log_every,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=run.seed,
    )
