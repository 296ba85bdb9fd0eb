"""Families of judges: what a reward model is asked, and how it writes its verdict. A family is data.

The prompts are template files. The shipped ones are in `templates/`; who serves a published reward model puts
its own prompt into a file and names it in the configuration. A template has a `[user]` part and may have a `[system]`
part before it, each headed by its name alone on a line; `{query}`, `{first}` and so on stand for what is judged, and
all other text, braces included, is itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Kind = Literal["pair", "reference", "rubric"]
Syntax = Literal["boxed", "brackets"]

FIELDS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "pair": ("query", "first", "second"),
        "reference": ("query", "reply", "reference"),
        "rubric": ("query", "reply", "rubric"),
    }
)
"""What each kind of judgement is asked about: the places that its template must have."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class JudgeFamily:
    """How one kind of judge writes its verdicts: for the first reply and the second, or for yes and no.

    `boxed`: the last balanced `\\boxed{…}`; `brackets`: the last `[[…]]`.
    """

    name: str
    syntax: Syntax
    verdicts: Mapping[Kind, tuple[str, str]]


JUDGE_FAMILIES: Mapping[str, JudgeFamily] = MappingProxyType(
    {
        family.name: family
        for family in (
            JudgeFamily(  # reward reasoning models, arXiv 2505.14674
                "rrm",
                "boxed",
                MappingProxyType(
                    {
                        "pair": ("Assistant 1", "Assistant 2"),
                        "reference": ("Correct", "Incorrect"),
                        "rubric": ("Pass", "Fail"),
                    }
                ),
            ),
            JudgeFamily(  # the same in few words, for small models; the demo judge is trained on it
                "rrm_short",
                "boxed",
                MappingProxyType({"pair": ("Assistant 1", "Assistant 2"), "reference": ("Correct", "Incorrect")}),
            ),
            JudgeFamily(  # the form of MT-Bench and RewardBench
                "brackets",
                "brackets",
                MappingProxyType(
                    {"pair": ("A", "B"), "reference": ("correct", "incorrect"), "rubric": ("pass", "fail")}
                ),
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Form:
    """One template, read and checked."""

    kind: Kind
    system: str
    user: str

    def messages(self, values: Mapping[str, str]) -> list[dict[str, str]]:
        """The conversation that asks for a verdict. What is filled in is not looked at for further places."""
        turns = [("system", self.system), ("user", self.user)]
        return [{"role": role, "content": _filled(text, values)} for role, text in turns if text]


def load_forms(family: JudgeFamily, files: Mapping[Kind, str]) -> Mapping[Kind, Form]:
    """The family's templates, those of `files` in place of the shipped ones. Raises `ValueError` for a wrong one."""
    return {
        kind: parse_form(kind, Path(files.get(kind) or TEMPLATES / f"{family.name}_{kind}.txt").read_text("utf-8"))
        for kind in family.verdicts
    }


def parse_form(kind: Kind, text: str) -> Form:
    """A template file's text, checked to have every place of its kind."""
    _, *parts = re.split(r"^\[(system|user)\]\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], (part.strip("\n") for part in parts[1::2]), strict=True))
    form = Form(kind, sections.get("system", ""), sections.get("user", ""))
    if not form.user:
        raise ValueError("a judge's template needs a [user] part")
    for field in FIELDS[kind]:
        if f"{{{field}}}" not in form.system + form.user:
            raise ValueError(f"a judge's template for a {kind} needs {{{field}}}")
    return form


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda place: values[place[1]], text)
