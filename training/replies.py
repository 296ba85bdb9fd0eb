"""A reply in a family's format, as training writes and reads it: mode, thought, answer.

Only families that choose their mode by their first token (`Family.chooses`) can be trained here.
"""

from dataclasses import dataclass

from models.families import FAMILIES, Family, Mode

MODES: tuple[Mode, Mode] = ("think", "no_think")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply says. `mode` is None when it opens with no mode tag; `complete` when every tag is closed."""

    mode: Mode | None
    thought: str
    answer: str
    complete: bool


def choosing_family(name: str) -> Family:
    """The family of that name. ValueError for an unknown one, or one without mode tags."""
    family = FAMILIES.get(name)
    if family is None or not family.chooses:
        known = ", ".join(sorted(key for key, value in FAMILIES.items() if value.chooses))
        raise ValueError(f"family {name!r} cannot be trained to choose its mode; these can: {known}")
    return family


def tags(family: Family, mode: Mode) -> tuple[str, str]:
    """The opening and the closing tag of a mode."""
    pair = family.thinking if mode == "think" else family.direct
    if pair is None:
        raise ValueError(f"family {family.name!r} has no tags for mode {mode!r}")
    return pair


def write(family: Family, mode: Mode, thought: str, answer: str) -> str:
    """The reply of one mode, end of turn left off: `<think>thought</think>answer` or `<no_think>answer</no_think>`."""
    opening, closing = tags(family, mode)
    return f"{opening}{thought}{closing}{answer}" if mode == "think" else f"{opening}{answer}{closing}"


def read(family: Family, text: str) -> Reply:
    """Reads a reply, the end-of-turn token removed. The inverse of `write` where the reply is well formed."""
    for mode in MODES:
        opening, closing = tags(family, mode)
        if text.startswith(opening):
            inside, found, after = text[len(opening) :].partition(closing)
            if mode == "think":
                return Reply(mode, inside, after, bool(found))
            return Reply(mode, "", inside, bool(found) and not after)
    return Reply(None, "", text, False)
