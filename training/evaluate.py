"""Measures a hybrid model on test questions: every mode forced, and its own free choice.

Writes `evaluation.json` and `evaluation.md`: accuracy and mean tokens by difficulty and mode, think ratio, P(think),
and Hybrid Accuracy with a bootstrap interval.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers.utils.logging import tqdm

from models.families import Family, Mode
from training import weights
from training.config import Evaluate
from training.hybrid_accuracy import Trial, bootstrap, mean, right_mode
from training.replies import MODES, choosing_family, read, tags
from training.rewards import correctness
from training.sampling import first_token_probabilities, sample
from training.tasks import TASKS, Question, Task, draw


@dataclass(frozen=True, slots=True)
class Scored:
    """One reply: its reward, its tokens (mode tag and end of turn included), the mode it is in."""

    score: float
    tokens: int
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded model with what is needed to question it."""

    model: Any
    tokenizer: Any
    task: Task
    family: Family
    recipe: Evaluate

    def prompt(self, question: Question) -> list[int]:
        message = [{"role": "user", "content": question.text}]
        ids: list[int] = self.tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return ids

    def mode_token(self, mode: Mode) -> list[int]:
        ids: list[int] = self.tokenizer.encode(tags(self.family, mode)[0], add_special_tokens=False)
        return ids

    def replies(self, questions: Sequence[Question], mode: Mode | None, samples: int) -> list[list[Scored]]:
        """`samples` scored replies to each question; `mode` None is the free choice."""
        recipe, forced = self.recipe, [] if mode is None else self.mode_token(mode)
        prompts = [[*self.prompt(question), *forced] for question in questions for _ in range(samples)]
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        sampled = sample(self.model, prompts, eos, pad, recipe.max_new_tokens, recipe.temperature, recipe.batch)
        asked = [question for question in questions for _ in range(samples)]
        scored = [self._score(question, [*forced, *ids]) for question, ids in zip(asked, sampled, strict=True)]
        return [scored[i : i + samples] for i in range(0, len(scored), samples)]

    def _score(self, question: Question, ids: list[int]) -> Scored:
        ended = ids[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        score = correctness(self.task, self.family, question.text, text, ended)
        return Scored(score, len(ids), read(self.family, text).mode)

    def think_probability(self, questions: Sequence[Question]) -> float:
        """Mean P(think) over questions, of the two mode tokens' probabilities alone."""
        ids = [self.mode_token(mode)[0] for mode in MODES]
        prompts = [self.prompt(question) for question in questions]
        found = first_token_probabilities(self.model, prompts, self.tokenizer.pad_token_id, ids, self.recipe.batch)
        return float((found[:, 0] / found.sum(1)).mean())


def main(recipe: Evaluate) -> str:
    """Runs the recipe, writes both files to `recipe.out`, returns the table."""
    tokenizer = weights.load_tokenizer(recipe.model)
    model = weights.load_model(recipe.model, tokenizer, recipe.seed).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    task, family = TASKS[recipe.task.name], choosing_family(recipe.model.family)
    result = evaluate(Subject(model, tokenizer, task, family, recipe))
    write(result, recipe.out)
    return table(result)


def evaluate(subject: Subject) -> dict[str, Any]:
    """The whole measurement as one JSON object."""
    recipe, rng = subject.recipe, Random(subject.recipe.seed)
    torch.manual_seed(recipe.seed)
    cells, trials = [], []
    for difficulty in tqdm(sorted(set(recipe.task.difficulties)), desc="difficulties"):
        questions = [draw(subject.task, difficulty, "test", rng) for _ in range(recipe.questions)]
        forced = {mode: subject.replies(questions, mode, recipe.samples) for mode in MODES}
        free = [replies[0] for replies in subject.replies(questions, None, 1)]
        found = [_trial(forced["think"][i], forced["no_think"][i], free[i]) for i in range(len(questions))]
        trials += found
        cell: dict[str, Any] = {
            "difficulty": difficulty,
            "distinct_questions": len({question.text for question in questions}),
            "free": _summary(free),
            "think_ratio": mean([reply.mode == "think" for reply in free]),
            "think_probability": subject.think_probability(questions),
            "hybrid_accuracy": _hybrid(found, recipe),
        }
        for mode in MODES:
            cell[mode] = _summary([reply for replies in forced[mode] for reply in replies])
        cells.append(cell)
    settings = recipe.model_dump(mode="json", exclude={"out"})
    return {"recipe": settings, "by_difficulty": cells, "hybrid_accuracy": _hybrid(trials, recipe)}


def _trial(think: Sequence[Scored], no_think: Sequence[Scored], free: Scored) -> Trial:
    return Trial(
        think=[reply.score for reply in think],
        no_think=[reply.score for reply in no_think],
        think_tokens=[reply.tokens for reply in think],
        no_think_tokens=[reply.tokens for reply in no_think],
        chosen=free.mode,
    )


def _summary(replies: Sequence[Scored]) -> dict[str, float]:
    return {"accuracy": mean([r.score for r in replies]), "mean_tokens": mean([r.tokens for r in replies])}


def _hybrid(trials: Sequence[Trial], recipe: Evaluate) -> dict[str, Any]:
    hits = [float(trial.chosen == right_mode(trial, recipe.margin)) for trial in trials]
    return {"value": mean(hits), "interval": bootstrap(hits, recipe.resamples, recipe.seed), "questions": len(hits)}


def table(result: dict[str, Any]) -> str:
    """The measurement as a markdown table."""
    lines = [
        "| difficulty | no_think | think | free | tokens no / think / free | think ratio | P(think) | HAcc |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in result["by_difficulty"]:
        kinds = [cell["no_think"], cell["think"], cell["free"]]
        accuracies = " | ".join(f"{kind['accuracy']:.3f}" for kind in kinds)
        tokens = " / ".join(f"{kind['mean_tokens']:.1f}" for kind in kinds)
        choice = f"{cell['think_ratio']:.3f} | {cell['think_probability']:.3f} | {cell['hybrid_accuracy']['value']:.3f}"
        lines.append(f"| {cell['difficulty']} | {accuracies} | {tokens} | {choice} |")
    total = result["hybrid_accuracy"]
    low, high = total["interval"]
    lines.append(f"\nHAcc {total['value']:.3f} (95 % interval {low:.3f} to {high:.3f}, {total['questions']} questions)")
    return "\n".join(lines)


def write(result: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "evaluation.md").write_text(table(result) + "\n")
