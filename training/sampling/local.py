"""Replies of a model to many questions, through transformers in this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from models.formats import FAMILIES
from models.formats.reasoning import Mode
from models.text.tokenizer import HubTokenizer
from training.config.sections import SampleRecipe
from training.data.budget_replies import budget_format_of
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.replies import format_of
from training.data.samples import SampledReply
from training.sampling.batches import sample
from training.weights import store

Reader = Callable[[TrainingQuestion, Mode | None, Sequence[int]], SampledReply]


def replies_of(recipe: SampleRecipe, questions: Sequence[TrainingQuestion]) -> Iterator[list[SampledReply]]:
    """The replies to each question, unscored; as many questions at a time as fill a batch."""
    assert recipe.model is not None
    tokenizer, model = store.load_served_tokenizer(recipe.model.path), store.load_for_use(recipe.model, recipe.seed)
    read, prefixes, end = _reader(recipe, tokenizer)
    torch.manual_seed(recipe.seed + len(questions))  # what is gone on with draws anew
    at_once = max(1, recipe.batch // len(recipe.asked))
    for start in range(0, len(questions), at_once):
        asked = [(one, mode) for one in questions[start : start + at_once] for mode, *_ in recipe.asked]
        forced = [prefixes[mode] if mode else () for _, mode in asked]
        sampled = sample(
            model,
            [[*tokenizer.render(one.messages), *prefix] for (one, _), prefix in zip(asked, forced, strict=True)],
            end,
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature or 0.0,
            batch=recipe.batch,
        )
        replies = [
            read(question, mode, [*prefix, *ids])
            for (question, mode), prefix, ids in zip(asked, forced, sampled, strict=True)
        ]
        yield from (replies[i : i + len(recipe.asked)] for i in range(0, len(replies), len(recipe.asked)))


def _reader(recipe: SampleRecipe, tokenizer: HubTokenizer) -> tuple[Reader, Mapping[Mode, Sequence[int]], int]:
    """What reads a reply, what each mode begins with, and the end of a turn."""
    assert recipe.model is not None
    family = FAMILIES.get(recipe.model.family)
    if family is None or not family.budget:
        form = format_of(recipe.model.family, tokenizer)

        def read(question: TrainingQuestion, mode: Mode | None, ids: Sequence[int]) -> SampledReply:
            one = form.read(ids)
            kept = (one.thought, one.answer, one.tokens, one.complete)
            return SampledReply(question, mode, one.mode, None, *kept, score=0.0)

        return read, form.prefixes, form.end
    if recipe.modes:
        raise UserError(f"modes: family {recipe.model.family} has none")
    budgets = budget_format_of(recipe.model.family, tokenizer)

    def read_plain(question: TrainingQuestion, mode: Mode | None, ids: Sequence[int]) -> SampledReply:
        one = budgets.read_plain(ids)
        kept = (one.answer, one.tokens, one.complete)
        return SampledReply(question, None, None, None, "", *kept, score=0.0, token_ids=tuple(ids[: one.tokens]))

    return read_plain, {}, budgets.end
