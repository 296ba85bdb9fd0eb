"""A family's format in one vocabulary, as training writes and reads it. What a reply says is decided by the very state
machine that serves it, so that a reward sees what a client would see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from models.engines.base import Tokenizer
from models.formats import FAMILIES
from models.formats.parser import ReplyParser
from models.formats.prompt import opening_of
from models.formats.reasoning import NOTHING, Mode, ReasoningFormat
from models.formats.vocabulary import Tags, compile_tags
from training.data.errors import UserError

MODES: tuple[Mode, Mode] = ("think", "no_think")
PROBE = [{"role": "user", "content": "?"}]


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

    Both modes begin where the same prompt ends. Where the model's own template writes a mode further than that, the
    rest of its prompt is the beginning of the reply.
    """

    family: ReasoningFormat
    tokenizer: Tokenizer
    tags: Tags
    arguments: Mapping[str, Any]
    """The template's arguments for the prompt, of which `cut` tokens at the end belong to the reply."""
    cut: int
    opening: tuple[int, ...]
    """The end of the prompt that a reader of the reply has to know: an opened thought."""
    prefixes: Mapping[Mode, tuple[int, ...]]
    """What a reply in each mode begins with."""
    closings: Mapping[Mode, tuple[int, ...]]
    """What ends the thinking, or the direct answer."""
    pairs: Mapping[Mode, list[int]]
    """The tags of a complete reply in each mode."""
    tag_ids: frozenset[int]
    end: int
    """The id that ends the turn."""

    @property
    def mode_position(self) -> int:
        """Where the mode is decided: the first position at which replies in the two modes differ."""
        return len(_common(*self.prefixes.values()))

    def render(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The chat template around messages, up to where the reply begins."""
        ids = self.tokenizer.render(messages, template_kwargs=self.arguments)
        return ids[: len(ids) - self.cut]

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
        ids = [*self.opening, *(reply[:-1] if ended else reply)]
        sections: dict[str, list[int]] = {"reasoning": [], "answer": [], "control": []}
        for chunk in ReplyParser(self.tags).feed(ids, [self.tokenizer.token_text(i) for i in ids]):
            sections[chunk.kind] += chunk.token_ids
        thought, answer = (self.tokenizer.decode(sections[kind]).strip("\n") for kind in ("reasoning", "answer"))
        mode, tags = self._mode(ids, thought), [i for i in ids if i in self.tag_ids]
        pair = self.pairs[mode or "think"]
        closed_at_once = (
            mode == "no_think" and tags == ids[:1] == pair[1:]
        )  # a template that closes what it never opened
        complete = ended and mode is not None and (tags == pair or closed_at_once)
        if complete and self.family.direct and mode == "no_think":
            complete = tuple(ids[-len(self.closings[mode]) :]) == self.closings[mode]  # nothing stands behind it
        return ParsedReply(mode, thought, answer, complete, len(reply))

    def _mode(self, ids: Sequence[int], thought: str) -> Mode | None:
        if self.family.direct:
            return next((mode for mode in MODES if ids[:1] == self.pairs[mode][:1]), None)
        if ids[:1] == self.pairs["think"][:1]:
            return "think" if thought.strip() else "no_think"
        return "no_think" if ids[:1] == self.pairs["think"][1:] else None


def format_of(name: str, tokenizer: Tokenizer) -> ReplyFormat:
    """The format of a family in a vocabulary. UserError where a mode tag is not one token of it, or where the family or
    the chat template does not have both modes."""
    tags = tags_of(name)
    family = FAMILIES[name]
    if family.thinking is None or set(family.able) != set(MODES):
        can = [key for key, one in FAMILIES.items() if one.thinking and set(one.able) == set(MODES)]
        raise UserError(f"family {name!r} cannot be trained to choose its mode; these can: {', '.join(sorted(can))}")
    ids = {tag: i for tag in tags if (i := tokenizer.control_id(tag)) is not None}
    if len(ids) < len(set(tags)):
        raise UserError(f"{' and '.join(tags[:2])} must be tokens of the vocabulary: train the model with hft first")
    tokenizer.protect(tokenizer.control_texts)  # in questions they are text, whoever will serve the model
    compiled, encode = compile_tags(family, tokenizer), tokenizer.encode_control
    free = tokenizer.render(PROBE)
    begun = {
        mode: tokenizer.render(PROBE, None, family.modes.get(mode), False, family.behind.get(mode, ""))
        for mode in MODES
    }
    shared = free if all(ids[: len(free)] == free for ids in begun.values()) else _common(*begun.values())
    prefixes = {mode: tuple(ids[len(shared) :]) for mode, ids in begun.items()}
    thinks = family.behind.get("think", "")
    if not family.direct and thinks.startswith(family.thinking[0]) and not prefixes["no_think"]:
        prefixes["no_think"] = tuple(
            encode(f"{thinks}\n{family.closing}")
        )  # an empty thought, where the template knows none
    if not prefixes["no_think"] or prefixes["think"] == prefixes["no_think"]:
        raise UserError(f"the chat template knows no way not to think, as family {name!r} asks for it")
    layout = [tokenizer.token_text(i) for prefix in prefixes.values() for i in prefix if i not in ids.values()]
    if any(text.strip() for text in layout):
        raise UserError(f"the chat template writes family {name!r}'s mode before the reply: no reply can choose it")
    after_thought = f"{chr(10) * family.closing.endswith(chr(10))}{family.closing}"
    closings = {"think": after_thought, "no_think": family.direct[1] if family.direct else ""}
    tagged: Mapping[Mode, tuple[str, str]] = {"think": family.thinking, "no_think": family.direct or family.thinking}
    (end,) = tokenizer.eos_ids
    return ReplyFormat(
        family=family,
        tokenizer=tokenizer,
        tags=compiled,
        arguments=NOTHING if shared is free else family.modes.get("think", NOTHING),
        cut=0 if shared is free else len(tokenizer.render(PROBE, None, family.modes.get("think"))) - len(shared),
        opening=tuple(opening_of(compiled, shared)),
        prefixes=prefixes,
        closings={mode: tuple(encode(closings[mode])) for mode in MODES},
        pairs={mode: [ids[tag] for tag in tagged[mode]] for mode in MODES},
        tag_ids=frozenset(ids.values()),
        end=end,
    )


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The chat template around messages, up to where the reply begins; a last message of the assistant's is the
    beginning of the reply, in the family's control text."""
    if messages[-1]["role"] != "assistant":
        return tokenizer.render(messages)
    return [*tokenizer.render(messages[:-1]), *tokenizer.encode_control(messages[-1]["content"])]


def tags_of(name: str) -> list[str]:
    """Every tag of the family of that name. UserError for an unknown one."""
    family = FAMILIES.get(name)
    if family is None:
        raise UserError(f"family {name!r} is unknown; these are known: {', '.join(sorted(FAMILIES))}")
    pairs = (family.thinking, family.direct, family.budget, family.solution)
    return [tag for pair in pairs if pair for tag in pair]


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]
