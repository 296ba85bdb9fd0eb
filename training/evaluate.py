"""Measures a model on test questions: every mode forced, and the free choice of a hybrid model.

Writes `evaluation.json` and `evaluation.md`: accuracy with a bootstrap interval and tokens by difficulty and mode; for
a model with both modes also think ratio, P(think) and Hybrid Accuracy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers.utils.logging import tqdm

from models.formats.reasoning import Mode
from models.text.tokenizer import HubTokenizer
from training import plots, weights
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

    def think_probabilities(self, questions: Sequence[Question]) -> list[float]:
        """P(think) of each question, of the two mode tokens' probabilities alone."""
        ids = [self.form.pairs[mode][0] for mode in MODES]
        prompts = [self.form.prompt(question.text) for question in questions]
        found = first_token_probabilities(self.model, prompts, ids, self.recipe.batch)
        return list(map(float, found[:, 0] / found.sum(1)))


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
    scored: dict[Mode, list[list[Scored]]] = {mode: [] for mode in recipe.modes}
    for difficulty in tqdm(sorted(set(recipe.task.difficulties)), desc="difficulties"):
        questions = [draw(subject.task, difficulty, "test", rng) for _ in range(recipe.questions)]
        forced = {mode: subject.replies(questions, mode, recipe.samples) for mode in recipe.modes}
        cell: dict[str, Any] = {
            "difficulty": difficulty,
            "distinct_questions": len({question.text for question in questions}),
        }
        if set(recipe.modes) == set(MODES):
            choice, found = _choice(subject, questions, forced)
            cell |= choice
            trials += found
        for mode, replies in forced.items():
            cell[mode] = _summary(replies, recipe)
            scored[mode] += replies
        cells.append(cell)
    settings = recipe.model_dump(mode="json", exclude={"out"})
    overall = {mode: _summary(replies, recipe) for mode, replies in scored.items()}
    result = {"recipe": settings, "by_difficulty": cells, "overall": overall}
    return result | {"hybrid_accuracy": _hybrid(trials, recipe)} if trials else result


def _choice(
    subject: Subject, questions: Sequence[Question], forced: Mapping[Mode, Sequence[Sequence[Scored]]]
) -> tuple[dict[str, Any], list[Trial]]:
    """What a model with both modes chooses freely, or by the recipe's threshold, and whether it is the better mode."""
    likely, threshold = subject.think_probabilities(questions), subject.recipe.think_threshold
    if threshold is None:
        free = subject.replies(questions, None, 1)
    else:
        free = [[forced["think" if p >= threshold else "no_think"][i][0]] for i, p in enumerate(likely)]
    trials = [_trial(forced["think"][i], forced["no_think"][i], free[i][0]) for i in range(len(questions))]
    return {
        "free": _summary(free, subject.recipe),
        "think_ratio": mean([reply.mode == "think" for (reply,) in free]),
        "think_probability": mean(likely),
        "hybrid_accuracy": _hybrid(trials, subject.recipe),
    }, trials


def _trial(think: Sequence[Scored], no_think: Sequence[Scored], free: Scored) -> Trial:
    return Trial(
        think=[reply.score for reply in think],
        no_think=[reply.score for reply in no_think],
        think_tokens=[reply.tokens for reply in think],
        no_think_tokens=[reply.tokens for reply in no_think],
        chosen=free.mode,
    )


def _summary(replies: Sequence[Sequence[Scored]], recipe: Evaluate) -> dict[str, Any]:
    """Of the replies to each question. The interval is over questions, so samples of one question do not narrow it."""
    scores = [mean([reply.score for reply in of_one]) for of_one in replies]
    tokens = sorted(reply.tokens for of_one in replies for reply in of_one)
    return {
        "accuracy": mean(scores),
        "interval": bootstrap(scores, recipe.resamples, recipe.seed),
        "mean_tokens": mean(tokens),
        "tokens_10_50_90": [tokens[int(share * (len(tokens) - 1))] for share in (0.1, 0.5, 0.9)],
    }


def _hybrid(trials: Sequence[Trial], recipe: Evaluate) -> dict[str, Any]:
    hit = hits(trials, recipe.margin)
    return {"value": mean(hit), "interval": bootstrap(hit, recipe.resamples, recipe.seed), "questions": len(hit)}


def table(result: dict[str, Any]) -> str:
    """The measurement as a markdown table."""
    return _hybrid_table(result) if "hybrid_accuracy" in result else _mode_table(result)


def _mode_table(result: dict[str, Any]) -> str:
    lines = [
        "| mode | difficulty | accuracy | 95 % interval | mean tokens | 10 / 50 / 90 % |",
        "|---|---|---|---|---|---|",
    ]
    for mode, overall in result["overall"].items():
        cells = [(cell["difficulty"], cell[mode]) for cell in result["by_difficulty"]]
        for difficulty, cell in [*cells, ("all", overall)]:
            low, high = cell["interval"]
            tokens = " / ".join(str(count) for count in cell["tokens_10_50_90"])
            lines.append(
                f"| {mode} | {difficulty} | {cell['accuracy']:.3f} | {low:.3f} to {high:.3f} "
                f"| {cell['mean_tokens']:.1f} | {tokens} |"
            )
    return "\n".join(lines)


def _hybrid_table(result: dict[str, Any]) -> str:
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
    ways = [way for way in (*MODES, "free") if way in result["by_difficulty"][0]]
    cells = [
        {"difficulty": cell["difficulty"], **{way: _point(cell[way]) for way in ways}}
        for cell in result["by_difficulty"]
    ]
    plots.frontier(cells, ways, out)


def _point(summary: dict[str, Any]) -> dict[str, float]:
    return {"accuracy": summary["accuracy"], "tokens": summary["mean_tokens"]}
