"""The trainer of the text classifier: what it writes is what the server reads, and decides as it was taught."""

import json
import random
from pathlib import Path

from controllers.deciders.classifier import ClassifierConfig, TextClassifier, _rate, text_features
from training.classifier import RatedConversation, fit_classifier


def question(rng: random.Random) -> tuple[str, bool]:
    hard = rng.random() < 0.5
    numbers = " * ".join(str(rng.randint(100, 999)) for _ in range(3))
    return (f"compute {numbers}" if hard else f"what is the capital of {rng.choice(('France', 'Spain'))}"), hard


def test_a_trained_classifier_tells_hard_questions_from_plain_ones(tmp_path: Path) -> None:
    rng = random.Random(0)
    drawn = [question(rng) for _ in range(200)]
    rated = [RatedConversation([{"role": "user", "content": text}], 0.9, 0.1 if hard else 0.9) for text, hard in drawn]
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(fit_classifier(rated)), "utf-8")
    config = ClassifierConfig(weights=str(file))
    think, direct = TextClassifier(config)._heads
    assert config.calibrated().threshold == 0.05
    for text, hard in (question(rng) for _ in range(50)):
        features = text_features([{"role": "user", "content": text}], 0)
        assert (_rate(think, features) - _rate(direct, features) >= 0.05) == hard
