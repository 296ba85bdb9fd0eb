"""Measures a model on test questions: every mode forced, and the free choice of a hybrid model.

Writes `evaluation.json` and `evaluation.md`: accuracy with a bootstrap interval and tokens by difficulty and mode; for
a model with both modes also think ratio, P(think) and Hybrid Accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers.utils.logging import tqdm

from models.formats.reasoning import Mode
from training.config.sections import EvaluateRecipe
from training.config.source import open_source
from training.data.errors import UserError
from training.data.questions import QuestionSource, TrainingQuestion
from training.data.replies import MODES, ReplyFormat, format_of
from training.evaluation import plots, results
from training.evaluation.results import markdown
from training.evaluation.statistics import ModeTrial, bootstrap, hits, mean
from training.sampling.batches import first_token_probabilities, sample
from training.weights import store


@dataclass(frozen=True, slots=True)
class ModeReply:
    """One reply: its reward, its tokens (mode tag and end of turn included), the mode it is in."""

    score: float
    tokens: int
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class ModeSubject:
    """A loaded model with what is needed to question it."""

    model: Any
    form: ReplyFormat
    source: QuestionSource
    recipe: EvaluateRecipe

    def replies(self, questions: Sequence[TrainingQuestion], mode: Mode | None, samples: int) -> list[list[ModeReply]]:
        """`samples` scored replies to each question; `mode` None is the free choice."""
        forced = self.form.prefixes[mode] if mode else ()
        asked = [question for question in questions for _ in range(samples)]
        prompts = [[*self.form.render(question.messages), *forced] for question in asked]
        sampled = sample(
            self.model,
            prompts,
            self.form.end,
            max_new_tokens=self.recipe.max_new_tokens,
            temperature=self.recipe.temperature,
            batch=self.recipe.batch,
        )
        read = [self.form.read([*forced, *ids]) for ids in sampled]
        complete = [(question, one.answer) for question, one in zip(asked, read, strict=True) if one.complete]
        scores = iter(self.source.scores(complete))
        scored = [ModeReply(next(scores) if one.complete else 0.0, one.tokens, one.mode) for one in read]
        return [scored[i : i + samples] for i in range(0, len(scored), samples)]

    def think_probabilities(self, questions: Sequence[TrainingQuestion]) -> list[float]:
        """P(think) of each question, of the two mode tokens' probabilities alone."""
        at = self.form.mode_position
        think, no_think = (self.form.prefixes[mode] for mode in MODES)
        if at == len(think):
            raise UserError(f"family {self.form.family.name!r} has no token that begins thinking")
        ids, prompts = [think[at], no_think[at]], [[*self.form.render(one.messages), *think[:at]] for one in questions]
        found = first_token_probabilities(self.model, prompts, ids, self.recipe.batch)
        return list(map(float, found[:, 0] / found.sum(1)))


def main(recipe: EvaluateRecipe) -> str:
    """Runs the recipe, writes both files to `recipe.out`, returns the table."""
    form = format_of(recipe.model.family, store.load_served_tokenizer(recipe.model.path))
    model = store.load_for_use(recipe.model, recipe.seed)
    result = evaluate(ModeSubject(model, form, open_source(recipe.data), recipe))
    write(result, recipe.out)
    return table(result)


def evaluate(subject: ModeSubject) -> dict[str, Any]:
    """The whole measurement as one JSON object."""
    recipe, rng = subject.recipe, Random(subject.recipe.seed)
    torch.manual_seed(recipe.seed)
    cells, trials = [], []
    scored: dict[Mode, list[list[ModeReply]]] = {mode: [] for mode in recipe.modes}
    groups: list[tuple[int, ...]] = [(one,) for one in sorted(set(recipe.data.difficulties))] or [()]
    for group in tqdm(groups, desc="difficulties"):
        questions = subject.source.draw(group, recipe.questions, "test", rng)
        forced = {mode: subject.replies(questions, mode, recipe.samples) for mode in recipe.modes}
        cell: dict[str, Any] = {
            "difficulty": group[0] if group else "any",
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
    subject: ModeSubject, questions: Sequence[TrainingQuestion], forced: Mapping[Mode, Sequence[Sequence[ModeReply]]]
) -> tuple[dict[str, Any], list[ModeTrial]]:
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


def _trial(think: Sequence[ModeReply], no_think: Sequence[ModeReply], free: ModeReply) -> ModeTrial:
    return ModeTrial(
        think=[reply.score for reply in think],
        no_think=[reply.score for reply in no_think],
        think_tokens=[reply.tokens for reply in think],
        no_think_tokens=[reply.tokens for reply in no_think],
        chosen=free.mode,
    )


def _summary(replies: Sequence[Sequence[ModeReply]], recipe: EvaluateRecipe) -> dict[str, Any]:
    """Of the replies to each question. The interval is over questions, so samples of one question do not narrow it."""
    scores = [mean([reply.score for reply in of_one]) for of_one in replies]
    tokens = sorted(reply.tokens for of_one in replies for reply in of_one)
    return {
        "accuracy": mean(scores),
        "interval": bootstrap(scores, recipe.resamples, recipe.seed),
        "mean_tokens": mean(tokens),
        "tokens_10_50_90": [tokens[int(share * (len(tokens) - 1))] for share in (0.1, 0.5, 0.9)],
    }


def _hybrid(trials: Sequence[ModeTrial], recipe: EvaluateRecipe) -> dict[str, Any]:
    hit = hits(trials, recipe.margin)
    return {"value": mean(hit), "interval": bootstrap(hit, recipe.resamples, recipe.seed), "questions": len(hit)}


def table(result: dict[str, Any]) -> str:
    """The measurement as a markdown table."""
    return _hybrid_table(result) if "hybrid_accuracy" in result else _mode_table(result)


def _mode_table(result: dict[str, Any]) -> str:
    rows = []
    for mode, overall in result["overall"].items():
        cells = [(cell["difficulty"], cell[mode]) for cell in result["by_difficulty"]]
        for difficulty, cell in [*cells, ("all", overall)]:
            accuracy, (low, high) = f"{cell['accuracy']:.3f}", cell["interval"]
            tokens = f"{cell['mean_tokens']:.1f}", " / ".join(map(str, cell["tokens_10_50_90"]))
            rows.append((mode, difficulty, accuracy, f"{low:.3f} to {high:.3f}", *tokens))
    return markdown("mode | difficulty | accuracy | 95 % interval | mean tokens | 10 / 50 / 90 %", rows)


def _hybrid_table(result: dict[str, Any]) -> str:
    columns = "difficulty | no_think | think | free | tokens no / think / free | think ratio | P(think) | HAcc"
    rows = []
    for cell in result["by_difficulty"]:
        kinds = [cell["no_think"], cell["think"], cell["free"]]
        accuracies = [f"{kind['accuracy']:.3f}" for kind in kinds]
        tokens = " / ".join(f"{kind['mean_tokens']:.1f}" for kind in kinds)
        choice = cell["think_ratio"], cell["think_probability"], cell["hybrid_accuracy"]["value"]
        rows.append((cell["difficulty"], *accuracies, tokens, *(f"{value:.3f}" for value in choice)))
    total = result["hybrid_accuracy"]
    low, high = total["interval"]
    return (
        f"{markdown(columns, rows)}\n\n"
        f"HAcc {total['value']:.3f} (95 % interval {low:.3f} to {high:.3f}, {total['questions']} questions)"
    )


def write(result: dict[str, Any], out: Path) -> None:
    results.write(out, "evaluation", result, table(result))
    ways = [way for way in (*MODES, "free") if way in result["by_difficulty"][0]]
    cells = [
        {"difficulty": cell["difficulty"], **{way: _point(cell[way]) for way in ways}}
        for cell in result["by_difficulty"]
    ]
    plots.frontier(cells, ways, out)


def _point(summary: dict[str, Any]) -> dict[str, float]:
    return {"accuracy": summary["accuracy"], "tokens": summary["mean_tokens"]}
