"""`method = "calibrate"`: from which score on a route is to think, by its deciders as served.

Replies in both modes and one of each decider are drawn by `training.sampling`. A third of the questions fits what a
score is worth, under half of them choose the threshold, the rest is reported on. Writes `calibration.json`, which
`[routes.NAME.auto]` reads, `calibration.md` and `calibration.png`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from training.config.sections import CalibrateRecipe, RouteSection
from training.data.errors import UserError
from training.data.samples import read_samples
from training.evaluation import plots, results, thresholds
from training.evaluation.deciders import DeciderReport, table
from training.evaluation.outcomes import DeciderReplies, Outcomes, Rows, grouped, read
from training.evaluation.thresholds import Scored, Side, fit_gain, gains
from training.sampling import sample

SPLITS, BINS = 100, 10


def main(recipe: CalibrateRecipe, resume: bool = False) -> str:
    """Runs the recipe and returns the table. With `resume` it goes on behind the last question that was drawn whole."""
    cards = _cards(recipe.route, recipe.sampling.deciders)
    _same_model(recipe.out / "served.json", cards, resume)
    sample.main(recipe.sampling, resume)
    outcomes = read(grouped(read_samples(recipe.sampling.out), len(recipe.sampling.asked)), list(cards))
    result = evaluate(outcomes, recipe, cards)
    results.write(recipe.out, "calibration", result, table(result))
    plots.deciders(result, recipe.out)
    return table(result)


def _cards(route: RouteSection, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the server says of each route. UserError where one has no decider, or two have the same."""
    key = os.environ.get(route.key_env, "")
    try:
        response = httpx.get(f"{route.url}/v1/models", headers={"authorization": f"Bearer {key}"} if key else {})
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise UserError(f"{route.url} cannot be asked for its routes: {error!r}") from error
    served = {card["id"]: card["reasond"] for card in response.json()["data"]}
    for name in names:
        if name not in served or served[name].get("deciding") is None:
            raise UserError(f"{route.url} has no route {name!r} with a decider")
    found = [served[name]["decider"] for name in names]
    if len(set(found)) < len(found):
        raise UserError(f"each of {', '.join(names)} must have another decider, not {', '.join(found)}")
    return {name: {"decider": served[name]["decider"], **served[name]["deciding"]} for name in names}


def _same_model(path: Path, cards: Mapping[str, Any], resume: bool) -> None:
    """What is gone on with must be what it was begun with."""
    if resume and path.exists() and json.loads(path.read_text()) != cards:
        raise UserError(f"the routes are not what they were when {path} was written: begin anew, without --resume")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cards, indent=1) + "\n")


def evaluate(outcomes: Outcomes, recipe: CalibrateRecipe, cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The whole calibration as one JSON object: what a server reads under `deciders`, what is reported beside it."""
    rows = {side: outcomes.rows(side) for side in thresholds.SHARES}
    if empty := [side for side, found in rows.items() if not len(found)]:
        raise UserError(f"no question is left to {empty[0]}: more are needed")
    report = DeciderReport(outcomes, rows["report"], recipe)
    deciders, ways = {}, report.baselines()
    for name, choice in outcomes.choices.items():
        card, known = cards[name], {"route": name, "fingerprint": cards[name]["fingerprint"]}
        if choice.score is None:
            ways[card["decider"]] = report.figures(report.chosen(choice, choice.thinks))
            continue
        found = _calibrated(outcomes, choice, rows, recipe)
        if not card["calibrated"]:  # else its threshold is none for scores
            served = report.chosen(choice, choice.score >= card["threshold"])
            ways[f"{card['decider']} at {card['threshold']:g}"] = report.figures(served)
        gain = gains(found["points"], choice.score)
        ways[f"{card['decider']}, calibrated"] = report.figures(report.chosen(choice, gain >= found["threshold"]))
        deciders[card["decider"]] = known | found | {"curve": report.curve(choice, gain)}
    settings = recipe.model_dump(mode="json", exclude={"out"})
    questions = {side: len(found) for side, found in rows.items()}
    return {"deciders": deciders, "ways": ways, "questions": questions, "recipe": settings}


def _calibrated(
    outcomes: Outcomes, choice: DeciderReplies, rows: Mapping[Side, Rows], recipe: CalibrateRecipe
) -> dict[str, Any]:
    """What a decider's scores are worth, and the threshold for what the recipe wants."""
    assert choice.score is not None
    direct = np.where(choice.thinks, outcomes.direct.right, choice.reply.right)
    mean = Scored(choice.score, direct, outcomes.think.right)
    pairs = Scored(choice.score, np.where(choice.thinks, outcomes.direct.one, choice.reply.one), outcomes.think.one)
    points = fit_gain(mean.at(rows["fit"]))
    tried = thresholds.to_try(gains(points, choice.score[rows["fit"]]))
    chosen = gains(points, choice.score[rows["choose"]])
    counts, _ = np.histogram(choice.score, BINS, (0, 1))
    found: dict[str, Any] = {"points": points, "scores": counts.tolist()}
    if recipe.max_loss is None:
        report = DeciderReport(outcomes, rows["choose"], recipe)
        return found | {"threshold": report.cheapest(choice, gains(points, choice.score), tried)}
    wanted, count = (recipe.max_loss, recipe.confidence), len(chosen)
    threshold = thresholds.safe_threshold(chosen, pairs.at(rows["choose"]), tried, *wanted)
    reported = gains(points, choice.score[rows["report"]])
    kept, left = thresholds.kept_promises(pairs, mean, *wanted, splits=SPLITS, seed=recipe.seed)
    promise = {
        "lost_when_chosen": thresholds.losses(chosen, pairs.at(rows["choose"]), threshold) / count,
        "lost_when_reported": thresholds.losses(reported, pairs.at(rows["report"]), threshold) / len(reported),
        "kept_in_splits": {"of": SPLITS, "all_questions": kept, "left_questions": left},
    }
    if threshold == 0:
        fewest = thresholds.needed(*wanted)
        enough = count >= fewest
        promise["always_thinks"] = (
            "no threshold keeps the promise" if enough else f"{count} questions to choose on; {fewest} are the fewest"
        )
    return found | {"threshold": threshold, "promise": promise}
