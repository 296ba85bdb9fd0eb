"""The prompt of a format: the model's own template in a mode, and where it leaves the reply.

A mode is an argument of the template. What a format forces behind the prompt is encoded together with it, so that the
tokens are those that the model knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

from models.engines.base import Tokenizer
from models.formats.history import Message, written
from models.formats.reasoning import Mode, ReasoningFormat
from models.formats.vocabulary import Tags

TAIL_TOKENS = 48  # at the end of a prompt, of which some may belong to the reply
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class TemplateInput:
    """A conversation as a template is given it. `arguments` are further ones of the template, the client's among them;
    those of the mode go before them."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] | None = None
    continue_final: bool = False


def render(
    form: ReasoningFormat,
    tokenizer: Tokenizer,
    given: TemplateInput,
    mode: Mode | None,
    own: Mapping[str, Any] = NOTHING,
    behind: str | None = None,
) -> list[int]:
    """The prompt in a mode (None: the model chooses it), with the `own` arguments of an effort or a budget, and with
    `behind` in place of the mode's own text."""
    if given.continue_final:
        behind = ""  # the client's own words stand there
    elif behind is None:
        behind = form.behind.get(mode, "") if mode else ""
    messages = written(given.messages, form.history, form.system.get(mode, "") if mode else "")
    arguments = {**(form.modes.get(mode, NOTHING) if mode else NOTHING), **own}
    return tokenizer.render(
        messages, given.tools, {**(given.arguments or NOTHING), **arguments}, given.continue_final, behind
    )


def opening_of(tags: Tags, token_ids: Sequence[int], *, continued: bool = False) -> list[int]:
    """The tokens at a prompt's end that belong to the reply: its last tags, and layout behind them. Where an
    assistant's turn is `continued`, all that it says from its first tag on."""
    texts: list[str] = []
    for token_id in reversed(token_ids[-4096 if continued else -TAIL_TOKENS :]):
        text = tags.marks.get(token_id) or tags.text_of(token_id)
        if text in tags.ends_turns:
            break
        texts.append(text)
    texts.reverse()
    found = (tags.any_tag if continued else tags.last_tags).search("".join(texts))
    if found is None:
        return []
    before = takewhile(lambda end: end <= found.start(), accumulate(map(len, texts)))
    return list(token_ids[len(token_ids) - len(texts) + sum(1 for _ in before) :])
