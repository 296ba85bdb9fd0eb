"""Supervised fine-tuning on rows of token ids, with TRL's trainer: what every next-token recipe shares."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from trl import SFTConfig, SFTTrainer

from models.text.tokenizer import HubTokenizer
from training import trainer
from training.config import Sft
from training.plain_head import scored_logits

IGNORED = -100

Row = dict[str, list[int]]
"""`input_ids` and `labels` of the same length, the prompt's labels `IGNORED`."""


def row(prompt: list[int], reply: list[int]) -> Row:
    return {"input_ids": [*prompt, *reply], "labels": [IGNORED] * len(prompt) + reply}


class PlainHeadTrainer(SFTTrainer):  # type: ignore[misc]
    """The same loss through the model's own head (see `plain_head`), without TRL's further metrics."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"][:, 1:]  # (B, T - 1)
        scored = labels != IGNORED
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        logits = scored_logits(model, head, inputs["input_ids"], inputs["attention_mask"], scored)  # (N, V)
        loss = functional.cross_entropy(logits.float(), labels[scored], reduction="sum")
        loss = loss / (scored.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss


def fit(config: Sft, rows: Callable[[HubTokenizer], Iterable[Row]], rows_a_step: int, resume: bool) -> None:
    """Trains on `rows` in their order and writes the model to `config.run.out`. Under `accelerate launch`, on every
    device. ValueError where a step's rows do not divide into micro-batches."""
    arguments = settings(config)
    accumulation, left = divmod(rows_a_step, config.micro_batch * arguments.world_size)
    if left:
        raise ValueError(f"{rows_a_step} rows a step must divide into micro_batch x devices")
    arguments.gradient_accumulation_steps = accumulation

    def parts(_: Any) -> dict[str, Any]:
        return {"train_dataset": Dataset.from_list(list(rows(HubTokenizer(config.run.out))))}

    trainer.fit(config, resume, SFTTrainer if config.fused_head else PlainHeadTrainer, arguments, parts)


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
        use_cpu=not torch.cuda.is_available(),
        logging_steps=run.log_every,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=run.seed,
    )
