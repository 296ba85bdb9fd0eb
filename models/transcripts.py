"""Text with a chat template's own marks in it, as trainers send it, taken apart into prompt and reply."""

import re
from dataclasses import dataclass

from models.engine import Tokenizer
from models.families import Family

PROBES = ("first-probe-7f3", "second-probe-9a1", "third-probe-4c8")
CONTROL = re.compile(r"<\|[^|<>]{1,64}\|>")


@dataclass(frozen=True, slots=True)
class Marks:
    """What a template writes around turns: before the first of the user, from user to reply, and from reply to user.

    `ends` are the tokens that end a reply. `thinking` and `direct` are the tags of the family.
    """

    opening: str
    to_reply: str
    to_user: str
    ends: tuple[str, ...]
    thinking: tuple[str, ...]
    direct: tuple[str, ...]

    def split(self, query: str, prompt: str = "") -> tuple[str, str] | None:
        """Prompt and reply of one string, without marks. None: it is not told where the reply begins.

        Where `prompt` is known and `query` goes on behind it, that is told exactly; else the last mark tells.
        """
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
        text = text.removesuffix(self.to_reply).removeprefix(self.opening)
        text = text.replace(self.to_user, "\n\nUser: ").replace(self.to_reply, "\n\nAssistant: ")
        return CONTROL.sub("", text).strip()

    def reply_text(self, text: str) -> str:
        """The answer of a reply: up to its end token, behind its thinking."""
        for end in self.ends:
            text = text.partition(end)[0]
        for tag in self.thinking[1:]:
            text = text.rpartition(tag)[2]
        for tag in self.direct:
            text = text.replace(tag, "")
        return CONTROL.sub("", text).strip()


def marks_of(tokenizer: Tokenizer, family: Family) -> Marks:
    """The marks of the tokenizer's template, read off a rendered conversation."""
    first, second, third = PROBES
    turns = [("user", first), ("assistant", second), ("user", third)]
    ids = tokenizer.render([{"role": role, "content": content} for role, content in turns])
    text = tokenizer.decode(ids, skip_special_tokens=False)
    opening, _, rest = text.partition(first)
    to_second, _, rest = rest.partition(second)
    to_user, _, ending = rest.partition(third)
    to_reply = ending if to_second.startswith(ending) else to_second  # a template may open thinking for a new reply
    ends = tuple(tokenizer.token_text(token_id) for token_id in sorted(tokenizer.eos_ids))
    return Marks(opening, to_reply, to_user, ends, family.thinking or (), family.direct or ())
