"""One run of any of TRL's trainers: what supervised fine-tuning and learning from own replies share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import optimizers, plots, runlog, weights
from training.config import Rollouts, Sft


def fit(
    config: Sft | Rollouts,
    resume: bool,
    trainer_class: type[Any],
    arguments: Any,
    parts: Callable[[Any], dict[str, Any]],
) -> None:
    """Runs the recipe and writes the model to `config.run.out`. Under `accelerate launch`, on every device.

    `arguments` are TRL's settings; `parts` makes the rest of the trainer's arguments from the tokenizer: data, rewards.
    """
    tokenizer = weights.load_tokenizer(config.model)
    model = weights.load_model(config.model, tokenizer, config.run.seed)
    metrics = runlog.begin(config.run.out, config, resume)
    tokenizer.save_pretrained(config.run.out)
    optimizer = optimizers.build(model, config.optimizer) if config.model.lora is None else None
    trainer = trainer_class(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        callbacks=[metrics],
        optimizers=(optimizer, optimizers.schedule(optimizer, config.steps, config.optimizer) if optimizer else None),
        **parts(tokenizer),
    )
    runlog.show_progress(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(Path(arguments.output_dir)) if resume else None)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        weights.save_adapter(trained, config.run.out)
        weights.save(trained, tokenizer, config.run.out)
        plots.curves(config.run.out)


def last_checkpoint(folder: Path) -> str:
    """The newest checkpoint that is whole: the trainer's state is written behind all else, and a kill may come between.
    ValueError where there is none."""
    whole = [
        state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if state.read_text().endswith("}\n")
    ]
    if not whole:
        raise ValueError(f"{folder} holds no checkpoint to go on from")
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2])))
