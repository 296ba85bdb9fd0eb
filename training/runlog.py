"""What a run leaves beside its model: `recipe.json` and `metrics.jsonl`, one JSON object a logged step."""

import json
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from transformers import TrainerCallback

KEPT = (
    *("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy", "reward"),
    *("completions/mean_length", "completions/clipped_ratio", "hgpo/reward_0", "hgpo/reward_1"),
    *(
        "budget/accuracy",
        "budget/declared",
        "budget/tokens",
        "budget/within_50",
        "budget/within_10",
        "budget/tolerance",
    ),
)


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends the trainer's logs to a file, with the seconds since the run began. Only on the main process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        kept = {name: _short(logs[name]) for name in KEPT if logs and name in logs}
        if not kept or not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "seconds": round(time.monotonic() - self.began, 1), **kept}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def begin(out: Path, recipe: BaseModel, resume: bool) -> MetricsFile:
    """Makes the run's folder and writes its recipe; a run that does not resume starts a new metrics file."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    metrics = MetricsFile(out / "metrics.jsonl")
    if not resume:
        metrics.path.unlink(missing_ok=True)
    return metrics
