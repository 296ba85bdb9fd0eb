"""A family's format in one vocabulary, as training writes and reads it. What a reply says is decided by the very state
machine that serves it, so that a reward sees what a client would see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from models.engines.base import Tokenizer
from models.formats import FAMILIES
from models.formats.parser import ReplyParser
from models.formats.reasoning import Mode, ReasoningFormat
from models.formats.vocabulary import Tags, compile_tags

MODES: tuple[Mode, Mode] = ("think", "no_think")
ROLES = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply says. `mode` is None when it opens with no mode tag.

    `complete` means: the turn was ended, and the tags are exactly the mode's opening and closing one, in this order.
    """

    mode: Mode | None
    thought: str
    answer: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Format:
    """Prompts and replies as token ids. Build it with `format_of`."""

    family: ReasoningFormat
    tokenizer: Tokenizer
    tags: Tags
    pairs: dict[Mode, tuple[int, int]]
    """The ids of the opening and the closing tag of each mode."""
    end: int
    """The id that ends the turn."""

    def prompt(self, question: str, history: Sequence[tuple[str, str]] = ()) -> list[int]:
        """The chat template around one user message, up to where the reply begins; behind `history`, if there is one:
        earlier questions and the answers to them, which a client sends back without their thoughts."""
        messages = [{"role": role, "content": text} for pair in history for role, text in zip(ROLES, pair, strict=True)]
        return self.tokenizer.render([*messages, {"role": "user", "content": question}])

    def write(self, mode: Mode, thought: str, answer: str) -> list[int]:
        """`<think>thought</think>answer` or `<no_think>answer</no_think>`, and the end of the turn."""
        opening, closing = self.pairs[mode]
        said = self.tokenizer.encode_control(answer)  # a judge's verdict is one token
        if mode == "think":
            return [opening, *self.tokenizer.encode(thought), closing, *said, self.end]
        return [opening, *said, closing, self.end]

    def read(self, reply: Sequence[int]) -> Reply:
        """The inverse of `write` where the reply is well formed."""
        ended = bool(reply) and reply[-1] == self.end
        ids = reply[:-1] if ended else reply
        sections: dict[str, list[int]] = {"reasoning": [], "answer": [], "control": []}
        for chunk in ReplyParser(self.tags).feed(ids, [self.tokenizer.token_text(i) for i in ids]):
            sections[chunk.kind] += chunk.token_ids
        mode = next((mode for mode in MODES if ids and ids[0] == self.pairs[mode][0]), None)
        complete = ended and mode is not None and sections["control"] == list(self.pairs[mode])
        if complete and mode == "no_think":
            complete = ids[-1] == self.pairs[mode][1]  # an answer goes on behind its closing tag
        thought, answer = (self.tokenizer.decode(sections[kind]) for kind in ("reasoning", "answer"))
        return Reply(mode, thought, answer, complete)


def choosing_family(name: str) -> ReasoningFormat:
    """The family of that name. ValueError for an unknown one, or one that does not choose its mode by a tag."""
    family = FAMILIES.get(name)
    if family is None or not family.chooses:
        known = ", ".join(sorted(key for key, value in FAMILIES.items() if value.chooses))
        raise ValueError(f"family {name!r} cannot be trained to choose its mode; these can: {known}")
    return family


def tags_of(name: str) -> list[str]:
    """Every tag of the family of that name. ValueError for an unknown one."""
    family = FAMILIES.get(name)
    if family is None:
        raise ValueError(f"family {name!r} is unknown; these are known: {', '.join(sorted(FAMILIES))}")
    pairs = (family.thinking, family.direct, family.budget, family.solution)
    return [tag for pair in pairs if pair for tag in pair]


def mode_tags(family: ReasoningFormat) -> dict[Mode, tuple[str, str]]:
    """The opening and the closing tag of each mode."""
    if family.thinking is None or family.direct is None:
        raise ValueError(f"family {family.name!r} has no tags for both modes")
    return {"think": family.thinking, "no_think": family.direct}


def format_of(name: str, tokenizer: Tokenizer) -> Format:
    """The format of a family in a vocabulary. ValueError where a mode tag is not one token of it."""
    family = choosing_family(name)
    pairs: dict[Mode, tuple[int, int]] = {}
    for mode, (opening, closing) in mode_tags(family).items():
        ids = tokenizer.control_id(opening), tokenizer.control_id(closing)
        if ids[0] is None or ids[1] is None:
            raise ValueError(
                f"{opening} and {closing} must be tokens of the vocabulary: train the model with hft first"
            )
        pairs[mode] = ids[0], ids[1]
    (end,) = tokenizer.eos_ids
    return Format(family, tokenizer, compile_tags(family, tokenizer), pairs, end)
