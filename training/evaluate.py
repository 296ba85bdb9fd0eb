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

from models.families import Mode
from models.tokenizer import HubTokenizer
from training import weights
from training.config import Evaluate
from training.hybrid_accuracy import Trial, bootstrap, hits, mean
from training.replies import MODES, Format, format_of
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
    form: Format
    task: Task
    recipe: Evaluate

    def replies(self, questions: Sequence[Question], mode: Mode | None, samples: int) -> list[list[Scored]]:
        """`samples` scored replies to each question; `mode` None is the free choice."""
        forced = self.form.pairs[mode][:1] if mode else ()
        asked = [question for question in questions for _ in range(samples)]
        prompts = [[*self.form.prompt(question.text), *forced] for question in asked]
        sampled = sample(
            self.model,
            prompts,
            self.form.end,
            max_new_tokens=self.recipe.max_new_tokens,
            temperature=self.recipe.temperature,
            batch=self.recipe.batch,
        )
        scored = [self._score(question, [*forced, *ids]) for question, ids in zip(asked, sampled, strict=True)]
        return [scored[i : i + samples] for i in range(0, len(scored), samples)]

    def _score(self, question: Question, ids: list[int]) -> Scored:
        reply = self.form.read(ids)
        return Scored(correctness(self.task, question.text, reply), len(ids), reply.mode)

    def think_probability(self, questions: Sequence[Question]) -> float:
        """Mean P(think) over questions, of the two mode tokens' probabilities alone."""
        ids = [self.form.pairs[mode][0] for mode in MODES]
        prompts = [self.form.prompt(question.text) for question in questions]
        found = first_token_probabilities(self.model, prompts, ids, self.recipe.batch)
        return float((found[:, 0] / found.sum(1)).mean())


def main(recipe: Evaluate) -> str:
    """Runs the recipe, writes both files to `recipe.out`, returns the table."""
    form = format_of(recipe.model.family, HubTokenizer(recipe.model.path))
    model = weights.load_model(recipe.model, weights.load_tokenizer(recipe.model), recipe.seed).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = evaluate(Subject(model, form, TASKS[recipe.task.name], recipe))
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
    hit = hits(trials, recipe.margin)
    return {"value": mean(hit), "interval": bootstrap(hit, recipe.resamples, recipe.seed), "questions": len(hit)}


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
