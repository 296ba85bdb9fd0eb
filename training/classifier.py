"""Trains the classifier of texts that a server asks whether a reply thinks (`decider = "classifier"`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from controllers.deciders.classifier import BUCKETS, COUNTS, TextFeatures, text_features

THRESHOLD = 0.05
DECAY = 1e-3
STEPS = 200
HEADS = ("think", "no_think")


@dataclass(frozen=True, slots=True)
class RatedConversation:
    """A conversation, and the shares of replies to it that were right in each mode."""

    messages: Sequence[Mapping[str, Any]]
    think: float
    no_think: float
    tools: int = 0


def fit_classifier(
    rated: Sequence[RatedConversation], *, decay: float = DECAY, threshold: float = THRESHOLD
) -> dict[str, Any]:
    """The weights of both heads as the server reads them from a file: bias, counts, words. `threshold` is the gain of
    thinking from which on a reply thinks."""
    rows = torch.stack([_row(text_features(one.messages, one.tools)) for one in rated])
    rates = torch.tensor([[one.think, one.no_think] for one in rated])
    weights = torch.zeros(rows.shape[1], len(HEADS), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(rows @ weights, rates)
        value = value + decay * weights[1:].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    heads = {name: [round(weight, 6) for weight in weights[:, at].tolist()] for at, name in enumerate(HEADS)}
    return {**heads, "threshold": threshold}


def _row(features: TextFeatures) -> torch.Tensor:
    row = torch.zeros(1 + COUNTS + BUCKETS)
    row[0] = 1.0
    row[1 : 1 + COUNTS] = torch.tensor(features.counts)
    for bucket, weight in features.words.items():
        row[1 + COUNTS + bucket] = weight
    return row
