"""Measures a model that declares its budget, against its own base, on test questions.

Three ways to ask the same questions: the base, the model with a budget of its own, and the model with a random budget
pre-filled. Writes `evaluation.json` and `evaluation.md`: accuracy and tokens, compression against the base, the share
of replies near their budget, and the slope of length on pre-filled budgets. Every figure has a bootstrap interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers.utils.logging import tqdm

from training.config.sections import EvaluateBudgetRecipe
from training.config.source import open_source
from training.data.budget_replies import BudgetFormat, BudgetReply, budget_format_of
from training.data.errors import UserError
from training.data.questions import QuestionSource, TrainingQuestion
from training.data.samples import budget_ranges, read_samples
from training.evaluation import plots, results
from training.evaluation.results import markdown, shown
from training.evaluation.statistics import BudgetTrial, compression, interval, mean, slope, within
from training.sampling.batches import sample
from training.weights import store

NEAR = (0.1, 0.2, 0.5)
WAYS = ("base", "own", "prefilled")


@dataclass(frozen=True, slots=True)
class BudgetSubject:
    """Both models, with what is needed to question them."""

    model: Any
    base: Any
    form: BudgetFormat
    source: QuestionSource
    recipe: EvaluateBudgetRecipe

    def ask(self, question: Sequence[TrainingQuestion], way: str, budgets: Sequence[int]) -> list[BudgetTrial]:
        """One reply to each question. `budgets` are written into the field in the way "prefilled"."""
        heads = [self.form.prefill(budget) if way == "prefilled" else [] for budget in budgets]
        prompts = [[*self.form.render(one.messages), *head] for one, head in zip(question, heads, strict=True)]
        replies = sample(
            self.base if way == "base" else self.model,
            prompts,
            self.form.end,
            max_new_tokens=self.recipe.max_new_tokens,
            temperature=self.recipe.temperature,
            batch=self.recipe.batch,
        )
        read: Callable[[Sequence[int]], BudgetReply] = self.form.read_plain if way == "base" else self.form.read
        said = [read([*head, *ids]) for head, ids in zip(heads, replies, strict=True)]
        complete = [(one, reply.answer) for one, reply in zip(question, said, strict=True) if reply.complete]
        scores = iter(self.source.scores(complete))
        return [BudgetTrial(reply.complete and next(scores) == 1, reply.tokens, reply.budget) for reply in said]


def main(recipe: EvaluateBudgetRecipe) -> str:
    """Runs the recipe, writes both files to `recipe.out`, returns the table."""
    form = budget_format_of(recipe.model.family, store.load_served_tokenizer(recipe.model.path))
    model, base = (store.load_for_use(one, recipe.seed) for one in (recipe.model, recipe.base))
    result = evaluate(BudgetSubject(model, base, form, open_source(recipe.data), recipe))
    write(result, recipe.out)
    return table(result)


def evaluate(subject: BudgetSubject) -> dict[str, Any]:
    """The whole measurement as one JSON object."""
    recipe, rng = subject.recipe, Random(subject.recipe.seed)
    torch.manual_seed(recipe.seed)
    ranges = budget_ranges(read_samples(recipe.samples))
    cells, everything = [], {way: list[BudgetTrial]() for way in WAYS}
    if unknown := set(recipe.data.difficulties) - ranges.keys():
        raise UserError(f"{recipe.samples} holds no right reply of difficulty {min(unknown)}")
    for difficulty in tqdm(sorted(set(recipe.data.difficulties)), desc="difficulties"):
        asked = subject.source.draw([difficulty], recipe.questions, "test", rng)
        budgets = [rng.randint(*ranges[difficulty]) for _ in asked]
        found = {way: subject.ask(asked, way, budgets) for way in WAYS}
        cells.append({"difficulty": difficulty, "budgets": ranges[difficulty], **_cell(found, recipe)})
        for way in WAYS:
            everything[way] += found[way]
    settings = recipe.model_dump(mode="json", exclude={"out"})
    return {"recipe": settings, "by_difficulty": cells, "overall": _cell(everything, recipe)}


def _cell(found: Mapping[str, Sequence[BudgetTrial]], recipe: EvaluateBudgetRecipe) -> dict[str, Any]:
    """All figures on the same questions. A slope over several difficulties mixes their ranges: read it within one."""

    def with_interval(figure: Callable[[Sequence[Any]], float], values: Sequence[Any]) -> dict[str, Any]:
        return {"value": figure(values), "interval": interval(figure, values, recipe.resamples, recipe.seed)}

    def near(share: float) -> Callable[[Sequence[BudgetTrial]], float]:
        return lambda replies: within(replies, share)

    cell: dict[str, Any] = {
        way: {
            "accuracy": with_interval(lambda replies: mean([one.correct for one in replies]), replies),
            "tokens": with_interval(lambda replies: mean([one.tokens for one in replies]), replies),
        }
        for way, replies in found.items()
    }
    for way in ("own", "prefilled"):
        cell[way]["declared"] = mean([one.budget or 0 for one in found[way]])
        cell[way]["within"] = {f"{share:.0%}": with_interval(near(share), found[way]) for share in NEAR}
    cell["prefilled"]["slope"] = with_interval(slope, found["prefilled"])
    cell["compression"] = with_interval(compression, list(zip(found["base"], found["own"], strict=True)))
    return cell


def table(result: dict[str, Any]) -> str:
    """The measurement as two markdown tables: its own budgets against the base, and pre-filled ones."""
    own_columns = "difficulty | accuracy base | own budget | tokens base | own budget | fewer | declared"
    filled_columns = "difficulty | budgets | accuracy | tokens | within 10 / 20 / 50 % | slope of length on budget"
    first, second = [], []
    for row in [*result["by_difficulty"], {"difficulty": "all", **result["overall"]}]:
        base, own, filled = (row[way] for way in WAYS)
        accuracy = [shown(way["accuracy"]) for way in (base, own)]
        tokens = [shown(way["tokens"], 1) for way in (base, own)]
        declared = f"{own['declared']:.1f}"
        first.append((row["difficulty"], *accuracy, *tokens, shown(row["compression"]), declared, _near(own)))
        one_range = "budgets" in row
        budgets = "-".join(map(str, row["budgets"])) if one_range else ""
        line = shown(filled["slope"]) if one_range else "by difficulty"
        ends = shown(filled["accuracy"]), shown(filled["tokens"], 1), _near(filled), line
        second.append((row["difficulty"], budgets, *ends))
    own_table = markdown(f"{own_columns} | within 10/20/50 %", first)
    return f"{own_table}\n\nRandom budgets, pre-filled:\n\n{markdown(filled_columns, second)}"


def _near(way: Mapping[str, Any]) -> str:
    return " / ".join(f"{found['value']:.3f}" for found in way["within"].values())


def write(result: dict[str, Any], out: Path) -> None:
    results.write(out, "evaluation", result, table(result))
    cells = [
        {
            "difficulty": cell["difficulty"],
            **{way: {name: cell[way][name]["value"] for name in ("accuracy", "tokens")} for way in WAYS},
        }
        for cell in result["by_difficulty"]
    ]
    plots.frontier(cells, WAYS, out)
