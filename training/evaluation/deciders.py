"""`method = "calibrate"`: what a route's deciders are worth, as served, and from which score on it is to think.

Replies in both modes and one of each decider are drawn by `training.sampling`. A third of the questions fits what a
score is worth, under half of them choose the threshold, the rest is reported on. Writes `calibration.json`, which
`[routes.NAME.auto]` reads, `calibration.md` and `calibration.png`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from training.config.sections import CalibrateRecipe, RouteSection
from training.data.errors import UserError
from training.data.samples import SampledReply, read_samples
from training.evaluation import calibration, plots
from training.evaluation.calibration import Floats, Scored, Side, fit_gain, gains
from training.sampling import sample

Rows = NDArray[np.intp]
SPLITS, BINS, GRID = 100, 10, 201


@dataclass(frozen=True, slots=True)
class Reply:
    """Replies to each question: whether right, tokens, seconds to the first text and to the answer. Each is the mean of
    several; `one` is whether the first is right."""

    right: Floats
    one: Floats
    tokens: Floats
    first: Floats
    answer: Floats


@dataclass(frozen=True, slots=True)
class Choice:
    """What a decider did with each question: its score (None: it has none), whether it thought, its own reply with all
    tokens that the choice cost, and what it costs to think after all."""

    score: Floats | None
    thinks: NDArray[np.bool_]
    reply: Reply
    spent: Floats
    waited: Floats


@dataclass(frozen=True, slots=True)
class Outcomes:
    sides: Sequence[Side]
    think: Reply
    direct: Reply
    choices: Mapping[str, Choice]

    def rows(self, side: Side) -> Rows:
        return np.flatnonzero([one == side for one in self.sides])


def main(recipe: CalibrateRecipe, resume: bool = False) -> str:
    """Runs the recipe and returns the table. With `resume` it goes on behind the last question that was drawn whole."""
    cards = _cards(recipe.route, recipe.sampling.deciders)
    _same_model(recipe.out / "served.json", cards, resume)
    sample.main(recipe.sampling, resume)
    outcomes = read(grouped(read_samples(recipe.sampling.out), len(recipe.sampling.asked)), list(cards))
    result = evaluate(outcomes, recipe, cards)
    (recipe.out / "calibration.json").write_text(json.dumps(result, indent=1) + "\n")
    (recipe.out / "calibration.md").write_text(table(result) + "\n")
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
        if name not in served or served[name].get("fingerprint") is None:
            raise UserError(f"{route.url} has no route {name!r} with a decider")
    found = [served[name]["decider"] for name in names]
    if len(set(found)) < len(found):
        raise UserError(f"each of {', '.join(names)} must have another decider, not {', '.join(found)}")
    return {
        name: {part: served[name][part] for part in ("decider", "fingerprint", "think_threshold")} for name in names
    }


def _same_model(path: Path, cards: Mapping[str, Any], resume: bool) -> None:
    """What is gone on with must be what it was begun with."""
    if resume and path.exists() and json.loads(path.read_text()) != cards:
        raise UserError(f"the routes are not what they were when {path} was written: begin anew, without --resume")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cards, indent=1) + "\n")


def grouped(samples: Sequence[SampledReply], of_each: int) -> list[Sequence[SampledReply]]:
    """The replies to each question that was drawn; one that was drawn twice is two."""
    return [samples[i : i + of_each] for i in range(0, len(samples), of_each)]


def read(groups: Sequence[Sequence[SampledReply]], deciders: Sequence[str]) -> Outcomes:
    """The outcomes of questions with all their replies."""
    forced = {
        mode: _replies([[one for one in group if one.asked == mode] for group in groups])
        for mode in ("think", "no_think")
    }
    own = {name: [next(one for one in group if one.way.decider == name) for group in groups] for name in deciders}
    choices = {name: _choice(replies) for name, replies in own.items()}
    sides = [calibration.side_of(group[0].question.text) for group in groups]
    return Outcomes(sides, forced["think"], forced["no_think"], choices)


def _replies(groups: Sequence[Sequence[SampledReply]]) -> Reply:
    def column(value: Callable[[SampledReply], float]) -> NDArray[np.float64]:
        return np.array([[value(one) for one in group] for group in groups], float)

    right = column(lambda one: one.right)
    times = [column(lambda one, name=name: getattr(one.served, name)) for name in ("first", "answer")]  # type: ignore[misc]
    return Reply(right.mean(1), right[:, 0], column(lambda one: one.tokens).mean(1), *(time.mean(1) for time in times))


def _choice(replies: Sequence[SampledReply]) -> Choice:
    """A draft that was accepted is the reply; to think after all costs all of it."""
    own, served = _replies([[one] for one in replies]), [one.served for one in replies]
    spent = np.array([one.decision_tokens for one in served if one], float)
    drafted = np.array([one.drafted for one in served if one])
    scores = [one.score for one in served if one]
    known = any(score is not None for score in scores)
    return Choice(
        np.array([1.0 if score is None else score for score in scores]) if known else None,
        np.array([one.mode == "think" for one in replies]),
        Reply(own.right, own.one, own.tokens + spent, own.first, own.answer),
        np.where(drafted, own.tokens + spent, spent),
        np.where(drafted, own.first, 0.0),
    )


def evaluate(outcomes: Outcomes, recipe: CalibrateRecipe, cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The whole calibration as one JSON object: what a server reads under `deciders`, what is reported beside it."""
    rows = {side: outcomes.rows(side) for side in calibration.SHARES}
    if empty := [side for side, found in rows.items() if not len(found)]:
        raise UserError(f"no question is left to {empty[0]}: more are needed")
    report = Report(outcomes, rows["report"], recipe)
    deciders, ways = {}, report.baselines()
    for name, choice in outcomes.choices.items():
        card, known = cards[name], {"route": name, "fingerprint": cards[name]["fingerprint"]}
        if choice.score is None:
            ways[card["decider"]] = report.figures(report.chosen(choice, choice.thinks))
            continue
        found = _calibrated(outcomes, choice, rows, recipe)
        served = card["think_threshold"]
        raw = choice.score >= (0.5 if served is None else served)
        ways[card["decider"]] = report.figures(report.chosen(choice, raw))
        gain = gains(found["points"], choice.score)
        ways[f"{card['decider']}, calibrated"] = report.figures(report.chosen(choice, gain >= found["threshold"]))
        deciders[card["decider"]] = known | found | {"curve": report.curve(choice, gain)}
    settings = recipe.model_dump(mode="json", exclude={"out"})
    questions = {side: len(found) for side, found in rows.items()}
    return {"deciders": deciders, "ways": ways, "questions": questions, "recipe": settings}


def _calibrated(
    outcomes: Outcomes, choice: Choice, rows: Mapping[Side, Rows], recipe: CalibrateRecipe
) -> dict[str, Any]:
    """What a decider's scores are worth, and the threshold for what the recipe wants."""
    assert choice.score is not None
    direct = np.where(choice.thinks, outcomes.direct.right, choice.reply.right)
    mean = Scored(choice.score, direct, outcomes.think.right)
    pairs = Scored(choice.score, np.where(choice.thinks, outcomes.direct.one, choice.reply.one), outcomes.think.one)
    points = fit_gain(mean.at(rows["fit"]))
    tried = calibration.thresholds(gains(points, choice.score[rows["fit"]]))
    chosen = gains(points, choice.score[rows["choose"]])
    counts, _ = np.histogram(choice.score, BINS, (0, 1))
    found: dict[str, Any] = {"points": points, "scores": counts.tolist()}
    if recipe.max_loss is None:
        report = Report(outcomes, rows["choose"], recipe)
        return found | {"threshold": report.cheapest(choice, gains(points, choice.score), tried)}
    wanted, count = (recipe.max_loss, recipe.confidence), len(chosen)
    threshold = calibration.safe_threshold(chosen, pairs.at(rows["choose"]), tried, *wanted)
    reported = gains(points, choice.score[rows["report"]])
    kept, left = calibration.kept_promises(pairs, mean, *wanted, splits=SPLITS, seed=recipe.seed)
    promise = {
        "lost_when_chosen": calibration.losses(chosen, pairs.at(rows["choose"]), threshold) / count,
        "lost_when_reported": calibration.losses(reported, pairs.at(rows["report"]), threshold) / len(reported),
        "kept_in_splits": {"of": SPLITS, "all_questions": kept, "left_questions": left},
    }
    if threshold == 0:
        fewest = calibration.needed(*wanted)
        enough = count >= fewest
        promise["always_thinks"] = (
            "no threshold keeps the promise" if enough else f"{count} questions to choose on; {fewest} are the fewest"
        )
    return found | {"threshold": threshold, "promise": promise}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of choices: which replies thought, and each reply's right, tokens and seconds."""

    thinks: NDArray[np.bool_]
    direct_right: Floats
    right: Floats
    tokens: Floats
    first: Floats
    answer: Floats


@dataclass(frozen=True, slots=True)
class Report:
    """The questions that are reported on."""

    outcomes: Outcomes
    rows: Rows
    recipe: CalibrateRecipe

    def chosen(self, choice: Choice, thinks: NDArray[np.bool_]) -> Chosen:
        """A decider's choices. Where it is to think and did not, the reply is the mean thinking one, and all that the
        decider did comes on top."""
        think, own = self.outcomes.think, choice.reply
        anew = thinks & ~choice.thinks
        pairs = (
            (own.right, think.right),
            (own.tokens, think.tokens + choice.spent),
            (own.first, think.first + choice.waited),
            (own.answer, think.answer + choice.waited),
        )
        return Chosen(
            thinks | choice.thinks,
            np.where(choice.thinks, self.outcomes.direct.one, own.one),
            *(np.where(anew, after, before) for before, after in pairs),
        )

    def baselines(self) -> dict[str, Any]:
        """Never, always, and in hindsight the cheapest mode that is right, or the cheapest."""
        think, direct = self.outcomes.think, self.outcomes.direct
        cheaper = think.tokens < direct.tokens
        better = np.where(think.one == direct.one, cheaper, think.one > direct.one)
        found = {}
        for name, thinks in (("never", np.zeros_like(better)), ("always", np.ones_like(better)), ("oracle", better)):
            exact = name == "oracle"
            columns = (
                (think.one, direct.one) if exact else (think.right, direct.right),
                *((getattr(think, part), getattr(direct, part)) for part in ("tokens", "first", "answer")),
            )
            found[name] = self.figures(Chosen(thinks, direct.one, *(np.where(thinks, *pair) for pair in columns)))
        return found

    def figures(self, chosen: Chosen) -> dict[str, Any]:
        """All figures on the reported questions. Intervals are over questions, drawn again in pairs."""
        rows = self.rows
        think, direct = self.outcomes.think, self.outcomes.direct
        always = self._interval(lambda at: chosen.right[at].mean() - think.right[at].mean())
        rate = chosen.thinks[rows].mean()
        chord = self.chord(rows, (chosen.tokens[rows].mean() - direct.tokens[rows].mean()) / self._range(rows))
        return {
            "accuracy": self._interval(lambda at: chosen.right[at].mean()),
            "against_always": always,
            "tokens": float(chosen.tokens[rows].mean()),
            "think_rate": float(rate),
            "over_chord": float(chosen.right[rows].mean() - chord),
            "recovered": self._interval(lambda at: self._recovered(chosen, at)),
            "shares": self._shares(chosen),
            "seconds_to_first": float(chosen.first[rows].mean()),
            "seconds_to_answer": float(chosen.answer[rows].mean()),
        }

    def _shares(self, chosen: Chosen) -> dict[str, float]:
        """The five outcomes, of one reply in each mode."""
        think, direct = self.outcomes.think.one[self.rows] == 1, chosen.direct_right[self.rows] == 1
        thought = chosen.thinks[self.rows]
        shares = {
            "needed": thought & think & ~direct,
            "direct_sufficed": ~thought & direct,
            "missed": ~thought & ~direct & think,
            "wasted": thought & direct,
            "neither_right": ~direct & ~think,
        }
        return {name: float(share.mean()) for name, share in shares.items()}

    def chord(self, rows: Rows, share: float) -> float:
        """The accuracy of thinking at random so often that the share of the tokens between never and always is this."""
        never, always = (self.outcomes.direct.right[rows].mean(), self.outcomes.think.right[rows].mean())
        return float(never + (always - never) * share)

    def _range(self, rows: Rows) -> float:
        return float(self.outcomes.think.tokens[rows].mean() - self.outcomes.direct.tokens[rows].mean())

    def _recovered(self, chosen: Chosen, rows: Rows) -> float:
        """How far from random choices to an oracle's that thinks as often, of which every thought is one that helps."""
        rate = float(chosen.thinks[rows].mean())
        helps = float((self.outcomes.think.one[rows] > self.outcomes.direct.one[rows]).mean())
        never, random = self.chord(rows, 0.0), self.chord(rows, rate)
        best = never + min(rate, helps)
        return (float(chosen.right[rows].mean()) - random) / (best - random) if best - random > 1e-9 else np.nan

    def curve(self, choice: Choice, gain: Floats) -> dict[str, Any]:
        """Tokens and accuracy at every threshold, and the area between the curve and the chord over the token share."""
        steps = [*np.unique(gain[self.rows]), np.inf]
        found = [self.chosen(choice, gain >= step) for step in steps]
        tokens = [float(one.tokens[self.rows].mean()) for one in found][::-1]
        accuracy = [float(one.right[self.rows].mean()) for one in found][::-1]
        shares = (np.array(tokens) - self.outcomes.direct.tokens[self.rows].mean()) / self._range(self.rows)
        grid = np.linspace(0, 1, GRID)
        above = np.interp(grid, shares, accuracy) - [self.chord(self.rows, share) for share in grid]
        above[grid < shares[0]] = 0.0  # a decider costs what it costs, also where it never thinks
        return {"tokens": tokens, "accuracy": accuracy, "area": float(np.trapezoid(above, grid))}

    def cheapest(self, choice: Choice, gain: Floats, tried: Sequence[float]) -> float:
        """The strictest threshold that saves the wanted share of tokens, or the one that is worth most at the price."""
        found = [(threshold, self.chosen(choice, gain >= threshold)) for threshold in (0.0, *tried)]
        always = self.outcomes.think.tokens[self.rows].mean()
        if self.recipe.token_saving is not None:
            most = (1 - self.recipe.token_saving) * always
            enough = [threshold for threshold, one in found if one.tokens[self.rows].mean() <= most]
            return enough[0] if enough else found[-1][0]
        price = (self.recipe.price or 0.0) / 1000
        worth = [one.right[self.rows].mean() - price * one.tokens[self.rows].mean() for _, one in found]
        return found[int(np.argmax(worth))][0]

    def _interval(self, figure: Callable[[Rows], float]) -> dict[str, Any]:
        rng, count = np.random.default_rng(self.recipe.seed), len(self.rows)
        drawn = [figure(self.rows[rng.integers(count, size=count)]) for _ in range(self.recipe.resamples)]
        known = np.array([value for value in drawn if np.isfinite(value)])
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        value = float(figure(self.rows))
        return {"value": value, "interval": [float(low), float(high)]} if np.isfinite(value) else {"value": None}


def table(result: Mapping[str, Any]) -> str:
    """Two markdown tables, and a line for each decider that was calibrated."""
    first = [
        "| way | accuracy | against always | all tokens | thinks | over the chord | of the way to the oracle |",
        "|---|---|---|---|---|---|---|",
    ]
    second = [
        "| way | needed | direct sufficed | missed | wasted | neither right | s to first text | s to answer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, way in result["ways"].items():
        first.append(
            f"| {name} | {_shown(way['accuracy'])} | {_shown(way['against_always'])} | {way['tokens']:.1f} "
            f"| {way['think_rate']:.3f} | {way['over_chord']:+.3f} | {_shown(way['recovered'])} |"
        )
        shares = " | ".join(f"{share:.3f}" for share in way["shares"].values())
        second.append(f"| {name} | {shares} | {way['seconds_to_first']:.2f} | {way['seconds_to_answer']:.2f} |")
    lines = [_told(name, own) for name, own in result["deciders"].items()]
    return "\n".join([*first, "", *second, "", *lines])


def _shown(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return ""
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


def _told(name: str, own: Mapping[str, Any]) -> str:
    text = f"{name}: threshold {own['threshold']:.4g}; area over the chord {own['curve']['area']:.3f}"
    promise = own.get("promise")
    if promise is None:
        return text
    kept = promise["kept_in_splits"]
    text += (
        f"; lost {promise['lost_when_chosen']:.4f} where chosen, {promise['lost_when_reported']:.4f} where reported; "
        f"promise kept in {kept['all_questions']} of {kept['of']} splits (on left questions {kept['left_questions']})"
    )
    return text + (f"; it always thinks: {promise['always_thinks']}" if "always_thinks" in promise else "")
