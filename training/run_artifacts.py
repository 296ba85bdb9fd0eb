"""What a run leaves beside its model, and shows while it goes on: `recipe.json`, `metrics.jsonl` (one JSON object a
logged step), TensorBoard's events under `tensorboard/`, a progress bar with the newest figures, and
`metrics.png`.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from pydantic import BaseModel
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

matplotlib.use("Agg")
from matplotlib import pyplot

from training.data.errors import UserError

KEPT = (
    *("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy", "reward"),
    *("completions/mean_length", "completions/clipped_ratio", "hgpo/reward_0", "hgpo/reward_1", "hgpo/probability_0"),
    *("budget/accuracy", "budget/declared", "budget/tokens", "budget/tolerance"),
    *("budget/within_10", "budget/within_50", "thinkless/think_ratio", "l1/off"),
    *("rewards/accuracies", "rewards/margins"),
)
RECIPE = "recipe.json"
MAY_CHANGE = ("run", "steps", "micro_batch", "fused_head", "generation", "engine", "gradient_checkpointing")
"""What a run that is gone on with may set otherwise than when it began."""
SHOWN = {
    "loss": "loss",
    "reward": "reward",
    "completions/mean_length": "tokens",
    "hgpo/probability_0": "P(think)",
    "budget/declared": "declared",
    "budget/within_50": "within 50 %",
}


PANELS: Mapping[str, Mapping[str, str]] = {
    "loss": {"loss": "loss"},
    "reward": {"reward": "all", "hgpo/reward_0": "think", "hgpo/reward_1": "no_think"},
    "tokens of a reply": {
        "completions/mean_length": "all tokens",
        "budget/declared": "declared",
        "budget/tokens": "used",
    },
    "share of replies": {
        "hgpo/probability_0": "P(think)",
        "thinkless/think_ratio": "thinks",
        "rewards/accuracies": "chosen before rejected",
        "budget/accuracy": "right",
        "budget/within_10": "within 10 % of the budget",
        "budget/within_50": "within 50 %",
    },
}
"""Title of a panel to the metrics in it and their labels. A panel without any is left out."""
LOSS_ONLY = {"reward"}
"""A run that has these needs no loss: that of a policy gradient says nothing."""


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends the trainer's logs to a file and to TensorBoard, with the seconds since the run began. Only on the main
    process. A run that goes on from a checkpoint first drops what was logged behind it."""

    def __init__(self, out: Path) -> None:
        self.path = out / "metrics.jsonl"
        self.events = out / "tensorboard"
        self.board: Any = None
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        before = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        kept = [line for line in before if line["step"] <= state.global_step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.began = time.monotonic() - (kept[-1]["seconds"] if kept else 0)
        self.board = SummaryWriter(str(self.events), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        kept = {name: _short(logs[name]) for name in KEPT if logs and name in logs}
        if not kept or not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "seconds": round(time.monotonic() - self.began, 1), **kept}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in kept.items():
            self.board.add_scalar(name, value, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.board is not None:
            self.board.close()


class Bar(ProgressCallback):  # type: ignore[misc]
    """The trainer's progress bar, with the newest figures beside the time that is left."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.training_bar is not None and logs:
            shown = {label: _short(logs[name]) for name, label in SHOWN.items() if name in logs}
            if shown:
                self.training_bar.set_postfix(shown)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def begin(out: Path, recipe: BaseModel, resume: bool) -> MetricsFile:
    """Makes the run's folder and writes its recipe. A run that does not resume drops an earlier one's metrics and
    checkpoints: --resume would go on from those."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE).write_text(recipe.model_dump_json(indent=2) + "\n")
    metrics = MetricsFile(out)
    if not resume:
        metrics.path.unlink(missing_ok=True)
        for old in metrics.events.glob("events.*"):
            old.unlink()
        for checkpoint in out.glob("checkpoints/checkpoint-*"):
            shutil.rmtree(checkpoint)
    return metrics


def refuse_another_recipe(out: Path, recipe: BaseModel) -> None:
    """UserError where a run that is gone on with began with other settings than those that may change on the way."""
    path = out / RECIPE
    before = json.loads(path.read_text()) if path.exists() else {}
    now = json.loads(recipe.model_dump_json())
    other = [name for name, value in before.items() if name not in MAY_CHANGE and now.get(name) != value]
    if other:
        raise UserError(f"{path} has another `{other[0]}`: --resume goes on with the recipe that the run began with")


def write_route(out: Path, family: str) -> None:
    """`reasond.toml`: the folder as a configuration, so that `reasond serve FOLDER` serves it under its own name."""
    name = json.dumps(out.resolve().name, ensure_ascii=False)  # JSON's strings are TOML's
    (out / "reasond.toml").write_text(
        f"# What this run made, served: reasond serve {out}\n"
        f'[engines.{name}]\nkind = "vllm"\nmodel = "."\n\n[routes.{name}]\nengine = {name}\nfamily = "{family}"\n',
        encoding="utf-8",
    )


@contextmanager
def progress_closed(trainer: Any) -> Iterator[None]:
    """Ends the progress bar's line where the block fails, so that what is told of it has one of its own."""
    try:
        yield
    except Exception:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, Bar) and callback.training_bar is not None:
                callback.training_bar.close()
        raise


def show_progress(trainer: Any) -> None:
    """Puts `Bar` in the place of the trainer's own bar, which prints every log in full. No bar stays no bar."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(Bar())


def plot_curves(out: Path) -> Path | None:
    """`metrics.png` from `metrics.jsonl`: reward, length and shares over the steps. None where nothing was logged."""
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {name for line in lines for name in line}
    titles = [title for title, metrics in PANELS.items() if known & set(metrics)]
    if known & LOSS_ONLY:
        titles.remove("loss")
    if not titles:
        return None
    figure, axes = pyplot.subplots(len(titles), 1, figsize=(7, 2.4 * len(titles)), sharex=True, squeeze=False)
    for axis, title in zip(axes[:, 0], titles, strict=True):
        for name, label in PANELS[title].items():
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1)
        axis.set_ylabel(title)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("step")
    return save_plot(figure, out / "metrics.png")


def save_plot(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
