"""Hybrid Fine-Tuning (LHRM stage I, arXiv 2505.14631, Eq 4): next-token loss on replies in both modes.

The loss covers the whole reply, mode tag included: without it a free-running model has no first token to choose.
Every question is written once in each of the recipe's modes; with both, the data say nothing about which one is right.
"""

from collections.abc import Iterator
from random import Random

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from models.families import Mode
from models.tokenizer import HubTokenizer
from training import optimizers, runlog, weights
from training.config import Hft
from training.replies import Format, format_of
from training.tasks import TASKS, Question, draw_many

IGNORED = -100


def row(question: Question, mode: Mode, form: Format) -> dict[str, list[int]]:
    """One training row: `input_ids` and `labels` of the same length, the prompt's labels ignored."""
    prompt, reply = form.prompt(question.text), form.write(mode, question.thought, question.answer)
    return {"input_ids": [*prompt, *reply], "labels": [IGNORED] * len(prompt) + reply}


def rows(config: Hft, form: Format) -> Iterator[dict[str, list[int]]]:
    """All rows in the order of training, every question in every mode, within a step by length to save padding."""
    task, rng = TASKS[config.task.name], Random(config.run.seed)
    for step in range(config.steps):
        easy = config.easy and step < config.easy_share * config.steps
        questions = draw_many(task, config.easy if easy else config.task.difficulties, config.questions, "train", rng)
        yield from sorted(
            (row(question, mode, form) for question in questions for mode in config.modes),
            key=lambda item: len(item["input_ids"]),
        )


def train(config: Hft, resume: bool = False) -> None:
    """Runs the recipe and writes the model to `config.run.out`. Under `accelerate launch`, on every device."""
    tokenizer = weights.load_tokenizer(config.model)
    model = weights.load_model(config.model, tokenizer, config.run.seed)
    metrics = runlog.begin(config.run.out, config, resume)
    tokenizer.save_pretrained(config.run.out)
    form = format_of(config.model.family, HubTokenizer(config.run.out))
    arguments = settings(config)
    accumulation, left = divmod(len(config.modes) * config.questions, config.micro_batch * arguments.world_size)
    if left:
        raise ValueError("modes x questions must divide into micro_batch x devices")
    arguments.gradient_accumulation_steps = accumulation
    optimizer = optimizers.build(model, config.optimizer) if config.model.lora is None else None
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows(config, form))),
        processing_class=tokenizer,
        callbacks=[metrics],
        optimizers=(optimizer, optimizers.schedule(optimizer, config.steps, config.optimizer) if optimizer else None),
        peft_config=weights.lora(config.model.lora),
    )
    trainer.train(resume_from_checkpoint=resume or None)
    if trainer.is_world_process_zero():
        weights.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, config.run.out)


def settings(config: Hft) -> SFTConfig:
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
        gradient_checkpointing=config.model.scratch is None,
        bf16=config.model.dtype == "bfloat16",
        logging_steps=run.log_every,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=run.seed,
    )
