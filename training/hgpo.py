"""Hybrid Group Policy Optimization (LHRM stage II, arXiv 2505.14631, Eq 5-12) on TRL's GRPO trainer.

A step: draw questions; sample N replies each, half of them behind each mode tag; reward them; give every token its
advantage (`advantages.py`); one clipped policy-gradient update. What touches TRL's inside is in `trl_seam.py`.
"""

from random import Random
from typing import Any

from datasets import Dataset
from torch import Tensor

from models.tokenizer import HubTokenizer
from training import grpo, optimizers, plots, runlog, weights
from training.advantages import Settings, token_advantages
from training.config import Hgpo
from training.replies import MODES, Format, format_of
from training.rewards import correctness
from training.tasks import TASKS, draw_many
from training.trl_seam import ForcedPrefixTrainer


def questions(config: Hgpo) -> Dataset:
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
        args=grpo.arguments(config),
        train_dataset=questions(config),
        processing_class=tokenizer,
        callbacks=[metrics],
        optimizers=(optimizer, optimizers.schedule(optimizer, config.steps, config.optimizer) if optimizer else None),
        peft_config=weights.lora(config.model.lora),
        prefixes=[form.pairs[mode][:1] for mode in MODES],
        token_advantages=advantages,
        mode_ratio=config.mode_ratio,
        settled=config.settled,
    )
    runlog.show_progress(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    if trainer.is_world_process_zero():
        weights.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, config.run.out)
        plots.curves(config.run.out)
