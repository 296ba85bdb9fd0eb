"""Replies to learn from, by transformers and by our engine: `python -m tests.bench.rollouts RECIPE [key=value ...]`.

What `reasond-train RECIPE` (`hgpo`) does in a step before it learns: a copy of the weights is made or handed over, and
every reply of a step is sampled. Both ways in turn on the same prompts, with the model that the recipe starts from;
printed are the seconds of each, tokens a second, and the ratio with its least and greatest round.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median

from models.text.tokenizer import HubTokenizer
from training.algorithms.hgpo import HgpoRecipe
from training.cli import read
from training.config.source import open_source
from training.data.replies import MODES, format_of
from training.sampling.policy import Sampler, sampler_of
from training.weights import store

WAYS = ("merged", "engine")


def prompts_of(recipe: HgpoRecipe) -> list[list[int]]:
    """One step's: every question `replies` times, half of them behind each mode tag."""
    form = format_of(recipe.model.family, HubTokenizer(recipe.model.path))
    rng = Random(recipe.run.seed + 1)
    drawn = open_source(recipe.data).draw(recipe.data.difficulties, recipe.questions, "train", rng)
    forced = [form.prefixes[MODES[2 * i // recipe.replies]] for i in range(recipe.replies)]
    return [[*form.render(question.messages), *prefix] for question in drawn for prefix in forced]


def timed(sampler: Sampler, model: object, prompts: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Seconds of a step's replies, and their tokens."""
    begun = time.perf_counter()
    replies = sampler(model, prompts)
    return time.perf_counter() - begun, sum(map(len, replies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    recipe = read(options.recipe, options.overrides)
    tokenizer = store.load_tokenizer(recipe.model)
    model = store.load_model(recipe.model, tokenizer, recipe.run.seed)
    prompts = prompts_of(recipe)
    with ExitStack() as stack:
        samplers = {way: stack.enter_context(sampler_of(recipe.model_copy(update={"generation": way}))) for way in WAYS}
        for way, sampler in samplers.items():
            print(f"{way}: {timed(sampler, model, prompts)[0]:.1f} s for the first step", flush=True)
        rounds = [
            {way: timed(sampler, model, prompts) for way, sampler in samplers.items()} for _ in range(options.rounds)
        ]
    for way in WAYS:
        seconds = [found[way][0] for found in rounds]
        rates = [found[way][1] / found[way][0] for found in rounds]
        print(f"{way}: {median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}], {median(rates):.0f} tokens/s")
    # by tokens: at temperature 1 no two steps write equally much
    ratios = [(f["engine"][1] / f["engine"][0]) / (f["merged"][1] / f["merged"][0]) for f in rounds]
    print(f"engine / merged, tokens a second: {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
