"""Supervised fine-tuning on rows of token ids, with TRL's trainer: what every next-token recipe shares."""

from collections.abc import Callable, Iterable

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from models.tokenizer import HubTokenizer
from training import optimizers, plots, runlog, weights
from training.config import Sft

IGNORED = -100

Row = dict[str, list[int]]
"""`input_ids` and `labels` of the same length, the prompt's labels `IGNORED`."""


def row(prompt: list[int], reply: list[int]) -> Row:
    return {"input_ids": [*prompt, *reply], "labels": [IGNORED] * len(prompt) + reply}


def fit(config: Sft, rows: Callable[[HubTokenizer], Iterable[Row]], rows_a_step: int, resume: bool) -> None:
    """Trains on `rows` in their order and writes the model to `config.run.out`. Under `accelerate launch`, on every
    device. ValueError where a step's rows do not divide into micro-batches."""
    tokenizer = weights.load_tokenizer(config.model)
    model = weights.load_model(config.model, tokenizer, config.run.seed)
    metrics = runlog.begin(config.run.out, config, resume)
    tokenizer.save_pretrained(config.run.out)
    arguments = settings(config)
    accumulation, left = divmod(rows_a_step, config.micro_batch * arguments.world_size)
    if left:
        raise ValueError(f"{rows_a_step} rows a step must divide into micro_batch x devices")
    arguments.gradient_accumulation_steps = accumulation
    optimizer = optimizers.build(model, config.optimizer) if config.model.lora is None else None
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows(HubTokenizer(config.run.out)))),
        processing_class=tokenizer,
        callbacks=[metrics],
        optimizers=(optimizer, optimizers.schedule(optimizer, config.steps, config.optimizer) if optimizer else None),
        peft_config=weights.lora(config.model.lora),
    )
    runlog.show_progress(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    if trainer.is_world_process_zero():
        weights.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, config.run.out)
        plots.curves(config.run.out)


def settings(config: Sft) -> SFTConfig:
    """TRL's settings for a recipe. Rows keep their order: the curriculum is in the data."""
    run, optimizer = config.run, config.optimizer
    return SFTConfig(
        output_dir=str(run.out / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        learning_rate=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        warmup_steps=optimizer.warmup,
        max_length=None,
        train_sampling_strategy="sequential",
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.model.dtype == "bfloat16",
        logging_steps=run.log_every,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=run.seed,
    )
