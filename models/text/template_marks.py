"""Text with a chat template's own marks in it, as trainers send it, taken apart into prompt and reply."""

import re
from dataclasses import dataclass

from models.engines.base import Tokenizer
from models.formats.reasoning import ReasoningFormat

PROBES = ("first-probe-7f3", "second-probe-9a1", "third-probe-4c8")


@dataclass(frozen=True, slots=True)
class Marks:
    """What a template writes around turns: before the first of the user, from user to reply, and from reply to user.

    `bos` begins a sequence and may be missing. `to_new_reply` is the whole end of a prompt that asks for a reply; it is
    longer than `to_reply` where the template opens thinking. `ends` are the tokens that end a reply, `specials` those
    that are no text at all. `thinking` and `direct` are the tags of the family.
    """

    bos: str
    opening: str
    to_reply: str
    to_new_reply: str
    to_user: str
    ends: tuple[str, ...]
    specials: re.Pattern[str]
    thinking: tuple[str, ...]
    direct: tuple[str, ...]

    def split(self, query: str, prompt: str = "") -> tuple[str, str] | None:
        """Prompt and reply of one string, without marks. None: it is not told where the reply begins.

        Where `prompt` is known and `query` goes on behind it, that is told exactly; else the last mark tells.
        """
        prompt = prompt.removeprefix(self.bos)
        at = query.find(prompt) if prompt else -1
        if at >= 0:
            head, reply = query[: at + len(prompt)], query[at + len(prompt) :]
        else:
            if self.to_reply not in query:
                return None
            head, _, reply = query.rpartition(self.to_reply)
        return self.prompt_text(head), self.reply_text(reply)

    def prompt_text(self, text: str) -> str:
        """A prompt to read: one turn by itself, several with their names."""
        end = self.to_new_reply if text.endswith(self.to_new_reply) else self.to_reply
        text = self._without_padding(text.removesuffix(end)).removeprefix(self.opening)
        text = text.replace(self.to_user, "\n\nUser: ").replace(self.to_reply, "\n\nAssistant: ")
        return self.specials.sub("", text).strip()

    def _without_padding(self, text: str) -> str:
        """What begins and pads a sequence taken off, up to the first turn."""
        while not text.startswith(self.opening) and (special := self.specials.match(text)):
            text = text[special.end() :]
        return text

    def reply_text(self, text: str) -> str:
        """The answer of a reply: up to its end token, behind its thinking. Thinking that never ends has none."""
        for end in self.ends:
            text = text.partition(end)[0]
        for tag in self.thinking[1:]:
            text = text.rpartition(tag)[2]
        if text.lstrip().startswith(self.thinking[:1]):
            return ""
        for tag in self.direct:
            text = text.replace(tag, "")
        return self.specials.sub("", text).strip()


def marks_of(tokenizer: Tokenizer, family: ReasoningFormat) -> Marks:
    """The marks of the tokenizer's template, read off a rendered conversation."""
    first, second, third = PROBES
    turns = [("user", first), ("assistant", second), ("user", third)]
    ids = tokenizer.render([{"role": role, "content": content} for role, content in turns])
    text = tokenizer.decode(ids, skip_special_tokens=False)
    opening, _, rest = text.partition(first)
    to_second, _, rest = rest.partition(second)
    to_user, _, ending = rest.partition(third)
    thinking, direct = family.thinking or (), family.direct or ()
    specials = _any_of(tokenizer.special_texts.difference(thinking, direct))
    ends = [tokenizer.token_text(token_id) for token_id in sorted(tokenizer.eos_ids)]
    if ends_turn := specials.match(to_user):
        ends.append(ends_turn[0])
    return Marks(
        tokenizer.bos_text,
        opening.removeprefix(tokenizer.bos_text),
        ending if to_second.startswith(ending) else to_second,
        ending,
        to_user,
        tuple(dict.fromkeys(ends)),
        specials,
        thinking,
        direct,
    )


def _any_of(texts: frozenset[str]) -> re.Pattern[str]:
    """A pattern of all these texts, the longest first; of none, one that matches nothing."""
    longest_first = sorted(filter(None, texts), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
