"""Checkers: what an answer to a question is worth. `CHECKERS` is the table; a checker is one class and one line there.

A recipe names one, `checker = "number"`, or gives it settings, `checker = { type = "regex", pattern = "…" }`. A score
that cannot be computed raises UserError: it is never 0.
"""

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator

from training.data.errors import UserError
from training.data.questions import TrainingQuestion

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/[1-9]\d*)?")
CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'])")
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
ANSWER = "{answer}"


class Checker(BaseModel):
    """Settings of a checker, and the checker itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        return [self.score(question, answer) for question, answer in answers]

    def score(self, question: TrainingQuestion, answer: str) -> float:
        return float(self.agrees(reference_of(question), answer))

    def agrees(self, reference: str, answer: str) -> bool:
        raise NotImplementedError

    def read_reference(self, question: TrainingQuestion) -> None:
        """UserError where the question's own answer is none that this checker can compare with."""
        self.agrees(reference_of(question), "")


class ExactChecker(Checker):
    """The same text, but for white space at both ends."""

    def agrees(self, reference: str, answer: str) -> bool:
        return answer.strip() == reference.strip()


class NumberChecker(Checker):
    """The last number of the answer is the last of the reference, within `tolerance`. What is boxed goes before."""

    tolerance: float = 0.0

    def agrees(self, reference: str, answer: str) -> bool:
        right, found = last_number(reference), last_number(answer)
        if right is None:
            raise UserError(f"{reference!r} holds no number")
        return found is not None and abs(found - right) <= self.tolerance


class ChoiceChecker(Checker):
    """The last option letter of the answer, A to J, is the reference's."""

    def agrees(self, reference: str, answer: str) -> bool:
        right = CHOICE.findall(reference)
        if not right:
            raise UserError(f"{reference!r} names no option A to J")
        return CHOICE.findall(answer)[-1:] == right[-1:]


class MathChecker(Checker):
    """Equal as mathematics, by the package math-verify."""

    def agrees(self, reference: str, answer: str) -> bool:
        from math_verify import parse, verify

        right = parse(reference, parsing_timeout=None) or parse(f"${reference}$", parsing_timeout=None)
        if not right:
            raise UserError(f"{reference!r} is nothing that math-verify reads")
        return bool(verify(right, parse(answer, parsing_timeout=None), timeout_seconds=None))


class RegexChecker(Checker):
    """`pattern` is found in the answer; `{answer}` in it stands for the reference, literally."""

    pattern: str

    @model_validator(mode="after")
    def _is_a_pattern(self) -> Self:
        try:
            re.compile(self.pattern.replace(ANSWER, "x"))
        except re.error as error:
            raise UserError(f"pattern: {error}") from error
        return self

    def score(self, question: TrainingQuestion, answer: str) -> float:
        wanted = reference_of(question) if ANSWER in self.pattern else ""
        return float(re.search(self.pattern.replace(ANSWER, re.escape(wanted.strip())), answer) is not None)

    def read_reference(self, question: TrainingQuestion) -> None:
        self.score(question, "")


class PythonChecker(Checker):
    """`function` ("module:name") takes the reference and the answer, and gives a number or a truth value."""

    function: str

    def score(self, question: TrainingQuestion, answer: str) -> float:
        function = import_name(self.function)
        try:
            found = function(question.answer, answer)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{question.origin}: {self.function} raised {error!r}") from error
        if not isinstance(found, int | float) or not math.isfinite(found):
            raise UserError(f"{question.origin}: {self.function} gave {found!r}, which is no score")
        return float(found)

    def read_reference(self, question: TrainingQuestion) -> None:
        self.score(question, question.answer)


class JudgeChecker(Checker):
    """A judge route of a running reasond at `url`. Answers to one question are rated against each other, or with
    `reference` each against the question's own answer. `key_env` names the variable that holds the API key."""

    url: str
    model: str | None = None
    votes: PositiveInt = 1
    reference: bool = False
    key_env: str = "REASOND_API_KEY"
    timeout: PositiveFloat = 600.0
    no_verdict: float | None = None
    """The score where the judge came to no verdict; None makes that an error."""

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        if not answers:
            return []
        items = []
        for _, group in groupby(answers, key=lambda pair: pair[0]):
            pairs = list(group)
            item: dict[str, Any] = {"query": pairs[0][0].text, "replies": [answer for _, answer in pairs]}
            items.append(item | ({"reference": reference_of(pairs[0][0])} if self.reference else {}))
        found = [score for result in self._ask(items) for score in result]
        if None in found and self.no_verdict is None:
            raise UserError(f"the judge at {self.url} came to no verdict on a reply; no_verdict would be its score")
        return [float(self.no_verdict if score is None else score) for score in found]  # type: ignore[arg-type]

    def _ask(self, items: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
        import httpx

        key = os.environ.get(self.key_env, "")
        body = {"items": items, "votes": self.votes} | ({"model": self.model} if self.model else {})
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            response = httpx.post(f"{self.url}/v1/rewards/score", json=body, headers=headers, timeout=self.timeout)
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise UserError(f"the judge at {self.url} refused: {error.response.text[:500]}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(f"the judge at {self.url} cannot be reached: {error!r}") from error
        try:
            results = response.json()["results"]
            return [
                result.get("scores", [None] * len(item["replies"])) for item, result in zip(items, results, strict=True)
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.url} does not answer as a judge: {response.text[:500]!r}") from error

    def read_reference(self, question: TrainingQuestion) -> None:
        if self.reference:
            reference_of(question)


class RewardModelChecker(Checker):
    """A sequence classifier that reads the conversation in its own chat template; its first logit is the score."""

    path: str
    batch: PositiveInt = 16

    def scores(self, answers: Sequence[tuple[TrainingQuestion, str]]) -> list[float]:
        import torch

        tokenizer, model = _reward_model(self.path)
        turns = [[*q.messages, {"role": "assistant", "content": answer}] for q, answer in answers]
        texts = [tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns]
        found: list[float] = []
        for start in range(0, len(texts), self.batch):
            inputs = tokenizer(
                texts[start : start + self.batch], return_tensors="pt", padding=True, add_special_tokens=False
            )
            with torch.inference_mode():
                found += model(**inputs.to(model.device)).logits[:, 0].float().tolist()
        if not all(map(math.isfinite, found)):
            raise UserError(f"the reward model {self.path} gave a score that is no number")
        return found

    def read_reference(self, question: TrainingQuestion) -> None:
        pass


CHECKERS: dict[str, type[Checker]] = {
    "exact": ExactChecker,
    "number": NumberChecker,
    "choice": ChoiceChecker,
    "math-verify": MathChecker,
    "regex": RegexChecker,
    "python": PythonChecker,
    "judge": JudgeChecker,
    "reward-model": RewardModelChecker,
}


def checker_of(value: Any) -> Checker:
    """The checker of a recipe's value: its name, or a table with its `type`. ValueError for what the table lacks."""
    if isinstance(value, Checker):
        return value
    table = {"type": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = table.pop("type", value)
    if name not in CHECKERS:
        raise UserError(f"{name!r} is none of {', '.join(CHECKERS)}")
    return CHECKERS[name].model_validate(table)


def reference_of(question: TrainingQuestion) -> str:
    """The question's own answer. UserError where it has none."""
    if not question.answer.strip():
        raise UserError(f"{question.origin}: no answer to compare with")
    return question.answer


def import_name(name: str) -> Any:
    """What can be called by the name "module:attribute"; modules in the working directory are found too."""
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name!r} names no Python object (module:attribute): {error}") from error
    if not callable(found):
        raise UserError(f"{name!r} is {type(found).__name__}, which cannot be called")
    return found


def last_number(text: str) -> Fraction | None:
    """The last number of the last box, or of the text where nothing is boxed."""
    boxed = BOXED.findall(text)
    found = NUMBER.findall(boxed[-1] if boxed else text)
    return Fraction(found[-1].replace(",", "")) if found else None


@lru_cache(maxsize=4)
def _reward_model(path: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"the reward model {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")
