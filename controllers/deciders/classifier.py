"""A classifier of the request's text, with no model behind it: words and counts in, two rates of right answers out."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from pydantic import Field, ValidationInfo, field_validator

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question
from controllers.deciders.calibration import Calibration
from models.config import resolve

BUCKETS = 4096
COUNTS = 16
READ = 20_000
"""Characters of the last user turn that are read: the end of a longer one."""
WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
ASKING = frozenset({"what", "which", "who", "when", "where", "why", "how", "prove", "explain", "find", "compute"})
OPERATORS = frozenset("+-*/=^<>%")
CODE = frozenset("{}();_[]")


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """`counts` are of the last user turn and of the conversation, `words` the weight of each word by its bucket."""

    counts: tuple[float, ...]
    words: Mapping[int, float]


def text_features(messages: Sequence[Mapping[str, Any]], tools: int) -> TextFeatures:
    """What is read of a conversation."""
    text = next((_text(turn) for turn in reversed(messages) if turn.get("role") == "user"), "")[-READ:]
    words = WORD.findall(text.lower())
    size, count = max(1, len(text)), max(1, len(words))
    lines = text.splitlines()
    counts = (
        math.log1p(len(text)),
        math.log1p(len(words)),
        sum(char.isdigit() for char in text) / size,
        math.log1p(sum(word.isdigit() for word in words)),
        math.log1p(sum(char in OPERATORS for char in text)),
        float("```" in text),
        sum(char in CODE for char in text) / size,
        math.log1p(text.count("?")),
        math.log1p(sum(word in ASKING for word in words)),
        math.log1p(len(lines)),
        math.log1p(sum(line.lstrip()[:1] in ("-", "*", "•") for line in lines)),
        math.log1p(len(messages)),
        math.log1p(tools),
        math.log1p(sum(len(_text(turn)) for turn in messages if turn.get("role") == "system")),
        sum(map(len, words)) / count / 10,
        sum(char.isupper() for char in text) / size,
    )
    weights: dict[int, float] = defaultdict(float)
    for word, times in Counter(words).items():
        weights[crc32(word.encode()) % BUCKETS] += math.log1p(times)
    length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
    return TextFeatures(counts, {bucket: weight / length for bucket, weight in weights.items()})


def _text(turn: Mapping[str, Any]) -> str:
    content = turn.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


class ClassifierConfig(DeciderConfig):
    """`weights` is the file that a training left. The score is the rate of right answers with thinking less that
    without, as far as the text tells."""

    decider: Literal["classifier"] = "classifier"
    weights: str = Field(min_length=1)

    @field_validator("weights")
    @classmethod
    def _weights_exist(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info, must_exist=True)

    def calibrated(self) -> Calibration:
        """Without a calibration the threshold is the training's."""
        return super().calibrated() if self.calibration else Calibration(threshold=_read(self.weights).get("threshold"))


class TextClassifier:
    def __init__(self, config: ClassifierConfig) -> None:
        """Raises `ValueError` where the file is another's."""
        held = _read(config.weights)
        self._heads = [[float(weight) for weight in held.get(name, ())] for name in ("think", "no_think")]
        if any(len(head) != 1 + COUNTS + BUCKETS for head in self._heads):
            raise ValueError(f"{config.weights}: expected two heads of {1 + COUNTS + BUCKETS} weights")

    async def decide(self, question: Question) -> ModeVerdict | None:
        request = question.request
        features = text_features(request.messages, len(request.tools))
        think, direct = (_rate(head, features) for head in self._heads)
        return question.verdict("classifier", max(0.0, think - direct))


def _rate(head: Sequence[float], features: TextFeatures) -> float:
    logit = head[0] + sum(weight * count for weight, count in zip(head[1:], features.counts, strict=False))
    logit += sum(head[1 + COUNTS + bucket] * weight for bucket, weight in features.words.items())
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, logit))))


def _read(file: str) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return held
