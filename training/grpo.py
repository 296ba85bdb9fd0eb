"""TRL's GRPO settings, as every recipe of that kind shares them."""

import torch
from trl import GRPOConfig

from training.config import Grpo


def arguments(config: Grpo) -> GRPOConfig:
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
