"""Families of judges: what a judge model is asked, and how it writes its verdict. A family is data.

Prompts are template files. The shipped ones, in our own words, are in `templates/`. Who serves a published judge
puts its maker's prompt into a file and names that in the configuration. A template has a `[user]` part and may have a
`[system]` part before it, each headed by its name alone on a line. `{query}`, `{first}` and the other places stand for
what is judged. All other text, braces included, is itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["pair", "reference", "rubric"]
Outcomes = tuple[str, str] | range

FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "pair": ("query", "first", "second"),
    "reference": ("query", "reply", "reference"),
    "rubric": ("query", "reply", "rubric"),
}
"""The places that the template of each kind of judgement must have."""

TEMPLATES = Path(__file__).parent / "templates"

BOXED = "boxed"
BRACKETS = r"\[\[([^\[\]]*)\]\]"


@dataclass(frozen=True, slots=True)
class JudgeFamily:
    """How one kind of judge writes its verdicts.

    `syntax` is a regular expression whose groups are the verdict, the last match counts; or `BOXED`, the last balanced
    `\\boxed{…}`. `outcomes` says for each kind of judgement what a verdict may be: two words, for the first reply and
    for the second, or for yes and for no; or a range of grades. Of a pair each reply gets a grade, and the higher wins.
    """

    name: str
    syntax: str
    outcomes: Mapping[Kind, Outcomes]


JUDGE_FAMILIES: dict[str, JudgeFamily] = {
    family.name: family
    for family in (
        JudgeFamily(  # reward reasoning models, arXiv 2505.14674
            "rrm",
            BOXED,
            {
                "pair": ("Assistant 1", "Assistant 2"),
                "reference": ("Correct", "Incorrect"),
                "rubric": ("Pass", "Fail"),
            },
        ),
        JudgeFamily(  # the same in few words, for small models; the demo judge is trained on it
            "rrm_short", BOXED, {"pair": ("Assistant 1", "Assistant 2"), "reference": ("Correct", "Incorrect")}
        ),
        JudgeFamily(  # the form of MT-Bench and RewardBench, which Skywork-Critic was trained on
            "brackets",
            BRACKETS,
            {"pair": ("A", "B"), "reference": ("correct", "incorrect"), "rubric": ("pass", "fail")},
        ),
        JudgeFamily(  # Prometheus 2, arXiv 2405.01535
            "prometheus",
            r"(?i)\[RESULT\]:?\s*(?:Response\s)?[(\[]?(\w+(?:\.\d+)?)",
            {"pair": ("A", "B"), "reference": range(1, 6), "rubric": range(1, 6)},
        ),
        JudgeFamily(  # Atla's Selene 1 Mini, arXiv 2501.17195
            "selene",
            r"\*\*Result:\*\*\s*(\w+)",
            {"pair": ("A", "B"), "reference": ("Yes", "No"), "rubric": ("Yes", "No")},
        ),
        JudgeFamily(  # JudgeLM, arXiv 2310.17631: both grades on the first line
            "judgelm",
            r"\A\s*(\d+(?:\.\d+)?),? +(\d+(?:\.\d+)?) *(?:\n|\Z)",
            {"pair": range(1, 11)},
        ),
    )
}


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
        for kind in family.outcomes
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
