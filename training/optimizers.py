"""Muon for the layers' matrices and AdamW for everything else, as one optimizer, and the learning-rate schedule.

For a tiny model trained from scratch Muon reaches the same loss in a fraction of the steps; for a pretrained one
AdamW alone is the usual choice (`build` with `matrix_lr` None).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.config.sections import OptimizerSection


class MuonAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """Two optimizers behind one face: their parameter groups are shared, so that a scheduler reaches both."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__([dict(group) for group in groups], {})
        self.param_groups = groups

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build(model: nn.Module, config: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer of a recipe. Embeddings (and so a tied head), norms and biases always take AdamW."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if config.matrix_lr is None:
        return torch.optim.AdamW(
            [weight for _, weight in trained], lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
    matrices = [w for name, w in trained if w.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for _, weight in trained if id(weight) not in chosen]
    muon = torch.optim.Muon(
        matrices, lr=config.matrix_lr, momentum=config.momentum, weight_decay=config.matrix_weight_decay
    )
    return MuonAdamW(
        [muon, torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)]
    )


def rate(step: int, steps: int, warmup: int, decay_from: float) -> float:
    """The share of the peak learning rate at a step: linear warm-up, constant, then linear to 0 from `decay_from` on.

    `decay_from` is a share of `steps`; 1 keeps the rate constant to the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, decay_from * steps)
    return 1.0 if step <= start else max(0.0, (steps - step) / (steps - start))


def schedule(optimizer: torch.optim.Optimizer, steps: int, config: OptimizerSection) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: rate(step, steps, config.warmup, config.decay_from))
