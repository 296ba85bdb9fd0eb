"""`method = "sample"`: draws replies to many questions, scores them and keeps them. It goes on where it was stopped."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from transformers.utils.logging import tqdm

from training.config.sections import SampleRecipe, Way
from training.config.source import open_source
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.samples import SampledReply, read_samples


def main(recipe: SampleRecipe, resume: bool = False) -> str:
    """Runs the recipe, and says what the file holds. With `resume`, whole questions that stand in it are left alone."""
    source = open_source(recipe.data)
    questions = source.draw(recipe.data.difficulties, recipe.questions, recipe.part, Random(recipe.seed))
    recipe.out.parent.mkdir(parents=True, exist_ok=True)
    done = _keep_whole(recipe.out, questions, recipe.asked) if resume and recipe.out.exists() else 0
    if recipe.route is not None:
        from training.sampling.route import replies_of
    else:
        from training.sampling.local import replies_of
    opened = "a" if done else "w"  # what stands there stays until there is a reply to take its place
    drawn = replies_of(recipe, questions[done:])
    for replies in tqdm(drawn, total=len(questions), initial=done, desc="questions"):
        scores = iter(source.scores([(one.question, one.reply) for one in replies if one.complete]))
        scored = [replace(one, score=next(scores) if one.complete else 0.0) for one in replies]
        with recipe.out.open(opened, encoding="utf-8") as file:
            file.writelines(one.line() for one in scored)
        opened = "a"
    kept = read_samples(recipe.out)
    return f"{recipe.out}: {len(kept)} replies, {sum(one.right for one in kept)} right"


def _keep_whole(path: Path, questions: Sequence[TrainingQuestion], ways: Sequence[Way]) -> int:
    """Cuts the file behind its last whole question; how many it holds. UserError where they are not the recipe's."""
    kept: list[SampledReply] = read_samples(path)
    whole = min(len(kept) // len(ways), len(questions))
    for i, one in enumerate(kept[: whole * len(ways)]):
        if (one.question.messages, one.way) != (questions[i // len(ways)].messages, ways[i % len(ways)]):
            raise UserError(f"{path} was drawn by another recipe: it cannot be gone on with")
    path.write_text("".join(one.line() for one in kept[: whole * len(ways)]), encoding="utf-8")
    return whole
