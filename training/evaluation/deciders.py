"""What choices between the modes are worth: accuracy against tokens, and how near to an oracle's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config.sections import CalibrateRecipe
from training.evaluation.outcomes import DeciderReplies, Outcomes, Rows
from training.evaluation.results import markdown, shown
from training.evaluation.statistics import resampled
from training.evaluation.thresholds import Floats

GRID, STEPS = 201, 65


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
class DeciderReport:
    """The questions that are reported on."""

    outcomes: Outcomes
    rows: Rows
    recipe: CalibrateRecipe

    def chosen(self, choice: DeciderReplies, thinks: NDArray[np.bool_]) -> Chosen:
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

    def curve(self, choice: DeciderReplies, gain: Floats) -> dict[str, Any]:
        """Tokens and accuracy at every threshold, and the area between the curve and the chord over the token share."""
        steps = [*np.unique(np.quantile(gain[self.rows], np.linspace(0, 1, STEPS), method="nearest")), np.inf]
        found = [self.chosen(choice, gain >= step) for step in steps]
        tokens = [float(one.tokens[self.rows].mean()) for one in found][::-1]
        accuracy = [float(one.right[self.rows].mean()) for one in found][::-1]
        shares = (np.array(tokens) - self.outcomes.direct.tokens[self.rows].mean()) / self._range(self.rows)
        grid = np.linspace(0, 1, GRID)
        above = np.interp(grid, shares, accuracy) - [self.chord(self.rows, share) for share in grid]
        above[grid < shares[0]] = 0.0  # a decider costs what it costs, also where it never thinks
        return {"tokens": tokens, "accuracy": accuracy, "area": float(np.trapezoid(above, grid))}

    def cheapest(self, choice: DeciderReplies, gain: Floats, tried: Sequence[float]) -> float:
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
        value, recipe = float(figure(self.rows)), self.recipe
        if not np.isfinite(value):
            return {"value": None}
        low, high = resampled(lambda at: figure(self.rows[at]), len(self.rows), recipe.resamples, recipe.seed)
        return {"value": value, "interval": [low, high]}


def table(result: Mapping[str, Any]) -> str:
    """Two markdown tables, and a line for each decider that was calibrated."""
    columns = "way | accuracy | against always | all tokens | thinks | over the chord | of the way to the oracle"
    shares = "way | needed | direct sufficed | missed | wasted | neither right | s to first text | s to answer"
    first, second = [], []
    for name, way in result["ways"].items():
        tokens, rate, above = f"{way['tokens']:.1f}", f"{way['think_rate']:.3f}", f"{way['over_chord']:+.3f}"
        accuracy = shown(way["accuracy"]), shown(way["against_always"])
        first.append((name, *accuracy, tokens, rate, above, shown(way["recovered"])))
        seconds = (f"{way[which]:.2f}" for which in ("seconds_to_first", "seconds_to_answer"))
        second.append((name, *(f"{share:.3f}" for share in way["shares"].values()), *seconds))
    lines = [_told(name, own) for name, own in result["deciders"].items()]
    return "\n".join([markdown(columns, first), "", markdown(shares, second), "", *lines])


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
