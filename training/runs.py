"""One run of a recipe that trains: its material, TRL's settings, the trainer, and what is saved at the end."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, GRPOConfig, SFTConfig

from models.text.tokenizer import HubTokenizer
from training import run_artifacts
from training.algorithms.curriculum import Curriculum
from training.algorithms.parts import Material, PolicyParts
from training.algorithms.preferences import DpoRecipe
from training.config.sections import PolicyRecipe, RowRecipe, TrainingRecipe
from training.config.source import open_source
from training.data.errors import UserError
from training.data.questions import QuestionSource, TrainingQuestion
from training.data.rows import PairRow, Row
from training.sampling.policy import sampler_of
from training.trl_adapter import PairTrainer, PolicyTrainer, RowTrainer, prompts
from training.weights import store


def fit_rows(rows: Callable[[Any, Material], Iterable[Row]], config: RowRecipe, resume: bool = False) -> None:
    """Trains on `rows` in their order and writes the model to `config.run.out`. Under `accelerate launch`, on every
    device. UserError where a step's rows do not divide into micro-batches."""
    arguments, source = row_arguments(config), open_source(config.data)

    def made(tokenizer: HubTokenizer) -> dict[str, Any]:
        return {"train_dataset": Dataset.from_list(list(rows(config, Material(tokenizer, source))))}

    _fit(config, resume, RowTrainer, arguments, made)


def fit_pairs(rows: Callable[[Any, Material], Iterable[PairRow]], config: DpoRecipe, resume: bool = False) -> None:
    """Trains on pairs of replies, by direct preference optimization, and writes the model to `config.run.out`."""
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.sft]} if config.sft else {}
    arguments, source = pair_arguments(config, losses), open_source(config.data)

    def made(tokenizer: HubTokenizer) -> dict[str, Any]:
        return {"train_dataset": Dataset.from_list(list(rows(config, Material(tokenizer, source))))}

    _fit(config, resume, PairTrainer, arguments, made)


def fit_policy(parts: Callable[[Any, Material], PolicyParts[Any]], config: PolicyRecipe, resume: bool = False) -> None:
    """Trains a policy on its own replies and writes the model to `config.run.out`. Under `accelerate launch`, on every
    device."""
    arguments, source = policy_arguments(config), open_source(config.data)
    drawn = questions_of(config, source)
    with sampler_of(config) as sampler:

        def made(tokenizer: HubTokenizer) -> dict[str, Any]:
            found = parts(config, Material(tokenizer, source, drawn))
            return {"parts": found, "train_dataset": prompts(found), "sampler": sampler}

        _fit(config, resume, PolicyTrainer, arguments, made)


def questions_of(config: PolicyRecipe, source: QuestionSource) -> Sequence[TrainingQuestion]:
    """The questions of a whole run."""
    count, seed = config.steps * config.questions, config.run.seed + 1
    if config.curriculum is not None:
        return Curriculum(config.curriculum, source, config.data.difficulties, count, seed)
    return source.draw(config.data.difficulties, count, "train", Random(seed))


def _fit(
    config: TrainingRecipe,
    resume: bool,
    trainer_class: type[Any],
    arguments: Any,
    parts: Callable[[HubTokenizer], dict[str, Any]],
) -> None:
    """`parts` makes the rest of the trainer's arguments from the tokenizer: data, rewards."""
    checkpoint = last_checkpoint(Path(arguments.output_dir)) if resume else None
    if resume:
        run_artifacts.refuse_another_recipe(config.run.out, config)
    tokenizer = store.load_tokenizer(config.model)
    model = store.load_model(config.model, tokenizer, config.run.seed)
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        made = parts(HubTokenizer(folder))
    trainer = trainer_class(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        settings=config.optimizer,
        fused_head=config.fused_head,
        **made,
    )
    if trainer.is_world_process_zero():
        trainer.add_callback(run_artifacts.begin(config.run.out, config, resume))
    run_artifacts.show_progress(trainer)
    with run_artifacts.progress_closed(trainer):
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        store.save_adapter(trained, config.run.out)
        store.save(trained, tokenizer, config.run.out)
        run_artifacts.write_route(config.run.out, config.model.family)
        run_artifacts.plot_curves(config.run.out)


def last_checkpoint(folder: Path) -> str:
    """The newest checkpoint that is whole: the trainer's state is written behind all else, and a kill may come between.
    UserError where there is none."""
    whole = [
        state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if state.read_text().endswith("}\n")
    ]
    if not whole:
        raise UserError(f"{folder} holds no checkpoint to go on from")
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2])))


def row_arguments(config: RowRecipe) -> SFTConfig:
    """TRL's settings. Rows keep their order: the curriculum is in the data."""
    return _arguments(
        SFTConfig,
        config,
        config.rows_a_step,
        max_length=None,
        train_sampling_strategy="sequential",
        gradient_checkpointing=config.gradient_checkpointing,
    )


def pair_arguments(config: DpoRecipe, losses: dict[str, Any]) -> DPOConfig:
    """TRL's settings for pairs, which keep their order too."""
    return _arguments(
        DPOConfig,
        config,
        config.rows_a_step,
        max_length=None,
        beta=config.beta,
        train_sampling_strategy="sequential",
        gradient_checkpointing=config.gradient_checkpointing,
        **losses,
    )


def policy_arguments(config: PolicyRecipe) -> GRPOConfig:
    """TRL's settings: one update per batch of replies, so that the policy is its own old policy."""
    by_vllm = config.generation in ("colocate", "server")
    if config.generation == "engine" and _devices(GRPOConfig, config) > 1:
        raise UserError('generation = "engine" is for one process')
    return _arguments(
        GRPOConfig,
        config,
        config.questions * config.replies,
        num_generations=config.replies,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        top_p=1.0,
        loss_type=config.loss,
        scale_rewards=config.scale_rewards,
        importance_sampling_level=config.importance,
        epsilon=config.epsilon,
        beta=config.beta,
        use_vllm=by_vllm,
        vllm_mode=config.generation if by_vllm else "colocate",
        gradient_checkpointing=torch.cuda.is_available() and config.generation in ("colocate", "server", "engine"),
    )


def _devices(arguments_class: type[Any], config: TrainingRecipe) -> int:
    on_cpu, folder = not torch.cuda.is_available(), str(config.run.out / "checkpoints")
    return int(arguments_class(output_dir=folder, report_to="none", bf16=False, use_cpu=on_cpu).world_size)


def _arguments(arguments_class: type[Any], config: TrainingRecipe, rows_a_step: int, **more: Any) -> Any:
    run, on_cpu = config.run, not torch.cuda.is_available()
    accumulation, rest = divmod(rows_a_step, config.micro_batch * _devices(arguments_class, config))
    if rest:
        raise UserError(f"{rows_a_step} rows a step must divide into micro_batch x devices")
    return arguments_class(
        output_dir=str(run.out / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.optimizer.lr,
        bf16=config.model.dtype == "bfloat16",
        use_cpu=on_cpu,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if run.checkpoint_every else "no",
        save_steps=run.checkpoint_every or 500,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=not on_cpu,
        seed=run.seed,
        **more,
    )
