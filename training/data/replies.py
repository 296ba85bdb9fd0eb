"""A family's format in one vocabulary, as training writes and reads it. What a reply says is decided by the very state
machine that serves it, so that a reward sees what a client would see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.engines.base import Tokenizer
from models.formats import FAMILIES
from models.formats.parser import ReplyParser
from models.formats.reasoning import Mode, ReasoningFormat
from models.formats.vocabulary import Tags, compile_tags
from training.data.errors import UserError

MODES: tuple[Mode, Mode] = ("think", "no_think")


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """What a reply says. `mode` is None when it opens with no mode.

    `complete` means: the turn was ended, and the tags are exactly those of the mode, in order.
    """

    mode: Mode | None
    thought: str
    answer: str
    complete: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """Prompts and replies as token ids. Build it with `format_of`.

    Two kinds: modes with tags of their own (LHRM), and a thinking block that is empty where a reply does not think.
    """

    family: ReasoningFormat
    tokenizer: Tokenizer
    tags: Tags
    prefixes: Mapping[Mode, tuple[int, ...]]
    """What a reply in each mode begins with."""
    closings: Mapping[Mode, tuple[int, ...]]
    """What ends the thinking, or the direct answer."""
    end: int
    """The id that ends the turn."""

    @property
    def mode_position(self) -> int:
        """Where the mode is decided: the first position at which replies in the two modes differ."""
        pairs = zip(*(self.prefixes[mode] for mode in MODES), strict=False)
        same = [a == b for a, b in pairs]
        return same.index(False) if False in same else len(same)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        return render_prompt(self.tokenizer, messages)

    def prompt(self, question: str) -> list[int]:
        return self.render([{"role": "user", "content": question}])

    def write(self, mode: Mode, thought: str, answer: str) -> list[int]:
        """A reply in one mode, and the end of the turn: `<think>thought</think>answer`, for instance."""
        said = self.tokenizer.encode_control(answer)  # a judge's verdict is one token
        if mode == "think":
            return [*self.prefixes[mode], *self.tokenizer.encode(thought), *self.closings[mode], *said, self.end]
        return [*self.prefixes[mode], *said, *self.closings[mode], self.end]

    def read(self, reply: Sequence[int]) -> ParsedReply:
        """The inverse of `write` where the reply is well formed."""
        ended = bool(reply) and reply[-1] == self.end
        ids = list(reply[:-1] if ended else reply)
        sections: dict[str, list[int]] = {"reasoning": [], "answer": [], "control": []}
        for chunk in ReplyParser(self.tags).feed(ids, [self.tokenizer.token_text(i) for i in ids]):
            sections[chunk.kind] += chunk.token_ids
        thought, answer = (self.tokenizer.decode(sections[kind]).strip("\n") for kind in ("reasoning", "answer"))
        mode = self._mode(ids, thought)
        complete = ended and mode is not None and self._tags_in(ids) == self._controls(mode)
        if complete and self.family.direct and mode == "no_think":
            complete = tuple(ids[-len(self.closings[mode]) :]) == self.closings[mode]  # nothing stands behind it
        return ParsedReply(mode, thought, answer, complete, len(reply))

    def _mode(self, ids: Sequence[int], thought: str) -> Mode | None:
        if self.family.direct:
            return next((mode for mode in MODES if tuple(ids[:1]) == self.prefixes[mode][:1]), None)
        opening = self.prefixes["think"][:1]
        begun = template_opens(self.family) or tuple(ids[: len(opening)]) == opening
        return ("think" if thought.strip() else "no_think") if begun else None

    def _tags_in(self, ids: Sequence[int]) -> list[int]:
        """All tags of a reply, those that are text where they stand among them."""
        tags = {self.tokenizer.control_id(tag) for tag in self.family.tags}
        return [i for i in ids if i in tags]

    def _controls(self, mode: Mode) -> list[int]:
        """The tags of a complete reply."""
        pair = self.family.direct if self.family.direct and mode == "no_think" else self.family.thinking
        assert pair is not None
        ids = [self.tokenizer.control_id(tag) for tag in pair]
        return [i for i in (ids[1:] if template_opens(self.family) else ids) if i is not None]


def template_opens(family: ReasoningFormat) -> bool:
    """Whether the template itself opens the thinking, so that not to think is to close it."""
    return family.thinking is not None and family.behind.get("no_think", "").strip().startswith(family.thinking[1])


def prefix_texts(family: ReasoningFormat) -> Mapping[Mode, str]:
    """What a reply in each mode begins with, behind a template that knows no modes. Empty for a family of which only
    its own template knows that."""
    think = family.behind.get("think", "")
    if family.direct or template_opens(family):
        return {"think": think, "no_think": family.behind["no_think"]}
    if family.thinking and "no_think" in family.able and think.startswith(family.thinking[0]):
        return {"think": think, "no_think": f"{think}\n{family.closing}"}  # an empty block
    return {}


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The chat template around messages, up to where the reply begins; a last message of the assistant's is the
    beginning of the reply, in the family's control text."""
    if messages[-1]["role"] != "assistant":
        return tokenizer.render(messages)
    return [*tokenizer.render(messages[:-1]), *tokenizer.encode_control(messages[-1]["content"])]


def tags_of(name: str) -> list[str]:
    """Every tag of the family of that name. ValueError for an unknown one."""
    family = FAMILIES.get(name)
    if family is None:
        raise UserError(f"family {name!r} is unknown; these are known: {', '.join(sorted(FAMILIES))}")
    pairs = (family.thinking, family.direct, family.budget, family.solution)
    return [tag for pair in pairs if pair for tag in pair]


def format_of(name: str, tokenizer: Tokenizer) -> ReplyFormat:
    """The format of a family in a vocabulary. UserError where a mode tag is not one token of it, or the family does
    not have both modes."""
    tags = tags_of(name)
    family = FAMILIES[name]
    prefixes = prefix_texts(family)
    if not prefixes:
        can = [key for key, one in FAMILIES.items() if prefix_texts(one)]
        raise UserError(f"family {name!r} cannot be trained to choose its mode; these can: {', '.join(sorted(can))}")
    if any(tokenizer.control_id(tag) is None for tag in tags):
        raise UserError(f"{' and '.join(tags[:2])} must be tokens of the vocabulary: train the model with hft first")
    encode = tokenizer.encode_control
    tokenizer.protect(tokenizer.control_texts)  # in questions they are text, whoever will serve the model
    after_thought = f"{chr(10) * family.closing.endswith(chr(10))}{family.closing}"
    closings = {"think": after_thought, "no_think": family.direct[1] if family.direct else ""}
    (end,) = tokenizer.eos_ids
    return ReplyFormat(
        family=family,
        tokenizer=tokenizer,
        tags=compile_tags(family, tokenizer),
        prefixes={mode: tuple(encode(prefixes[mode])) for mode in MODES},
        closings={mode: tuple(encode(closings[mode])) for mode in MODES},
        end=end,
    )
