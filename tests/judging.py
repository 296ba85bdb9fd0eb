"""Scripts that judge by a rule, for tests of everything that stands on a judge."""

from collections.abc import Callable

from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line
from models.text.tokenizer import HubTokenizer


class Reader:
    """A script that reads what is judged out of the prompt of the shipped RRM templates.

    `rule(first, second)` is what it writes of a pair, `single(reply, against)` of a reply beside its reference or
    rubric. What it has read is in `asked` and `sampled`.
    """

    def __init__(
        self,
        tokenizer: HubTokenizer,
        rule: Callable[[str, str], Line],
        single: Callable[[str, str], Line] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.rule = rule
        self.single = single or same_text
        self.asked: list[tuple[str, str]] = []
        self.prompts: list[str] = []
        self.sampled: list[Sampling] = []
        self.salts: list[str | None] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        text = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        self.prompts.append(text)
        self.sampled.append(sampling)
        self.salts.append(prompt.cache_salt)
        for head, rule in (("## Reference answer", self.single), ("## Rubric", self.single)):
            if f"\n\n{head}\n" in text:
                against = text.rpartition(f"\n\n{head}\n")[2].partition("\n\n## Assistant response\n")[0]
                reply = text.rpartition("## Assistant response\n")[2].partition("\n\n## Analysis")[0]
                self.asked.append((reply, against))
                return rule(reply, against)
        first = text.rpartition("### Assistant 1\n")[2].partition("\n\n### Assistant 2\n")[0]
        second = text.rpartition("### Assistant 2\n")[2].partition("\n\n## Analysis")[0]
        self.asked.append((first, second))
        return self.rule(first, second)


def boxed(verdict: str) -> str:
    return f"<no_think>\\boxed{{{verdict}}}</no_think>"


def larger_number(first: str, second: str) -> str:
    """The perfect judge of replies that are numbers."""
    better = "Assistant 1" if int(first) > int(second) else "Assistant 2"
    return f"<think>{first} against {second}</think>\\boxed{{{better}}}"


def same_text(reply: str, against: str) -> str:
    """The perfect judge of replies beside a reference."""
    return f"<think>{reply}</think>\\boxed{{{'Correct' if reply == against else 'Incorrect'}}}"
