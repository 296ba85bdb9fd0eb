"""Judging answers to chained arithmetic: which of two replies is right, or whether one agrees with a reference.

A question of this task is a judge's whole prompt (family `rrm_short`), its answer is the boxed verdict. Of a pair one
reply is right and one wrong, in random order; each is a digit alone or a digit with its working, so neither length nor
form tells anything. A wrong working has one wrong step and goes on from it without a further mistake.

    thought: 2 a*3=6 b-2=4 c-8=6 d-7=9

             ### Assistant 1
             9=9 right

             ### Assistant 2
             4=9 wrong
    answer:  \\boxed{Assistant 1}

The thought solves the question again, then sets both replies against the result. (A tiny model could not read off a
digit at the end of a working, nor compare two that do not stand side by side: docs/log.md.)
"""

import re
from random import Random

from controllers.judging.verdicts import verdict_in
from demo.tasks.chain import QUESTION, Chain, apply, solve
from models.judge_prompts.families import JUDGE_FAMILIES, Form, Kind, load_forms

FAMILY = JUDGE_FAMILIES["rrm_short"]
REFERENCE_SHARE = 0.15
WORKED_SHARE = 0.5


class Judging:
    """Difficulty d: the replies are to a question of d steps."""

    difficulties = Chain.difficulties

    def __init__(self) -> None:
        self._forms = load_forms(FAMILY, {})
        self._asked = {kind: re.compile(_pattern(form), re.DOTALL) for kind, form in self._forms.items()}

    def draw(self, difficulty: int, rng: Random) -> tuple[str, str, str]:
        query, solution, answer = Chain().draw(difficulty, rng)
        wrong = corrupted(solution, rng)
        right_reply, wrong_reply = (_reply(worked, rng) for worked in (solution, wrong))
        side = rng.randrange(2)
        if rng.random() < REFERENCE_SHARE:
            kind: Kind = "reference"
            reply = wrong_reply if side else right_reply
            values = {"query": query, "reference": answer, "reply": reply}
            thought = f"## Reference answer\n{answer}\n\n## Reply\n{_marked(reply, answer)}"
        else:
            kind = "pair"
            first, second = (wrong_reply, right_reply) if side else (right_reply, wrong_reply)
            values = {"query": query, "first": first, "second": second}
            marks = (f"### Assistant {i}\n{_marked(reply, answer)}" for i, reply in enumerate((first, second), 1))
            thought = "\n\n".join((solution, *marks))
        (message,) = self._forms[kind].messages(values)
        return message["content"], thought, f"\\boxed{{{FAMILY.outcomes[kind][side]}}}"

    def is_correct(self, text: str, answer: str) -> bool:
        for kind, pattern in self._asked.items():
            asked = pattern.fullmatch(text)
            if asked is not None:
                return verdict_in(answer, FAMILY, kind) == 1 - _better(kind, asked.groupdict())
        raise ValueError(f"not a question of this task: {text!r}")


def corrupted(solution: str, rng: Random) -> str:
    """A worked chain with one wrong step, and what follows from it. Steps lose nothing, so its answer is wrong too."""
    start, *steps = solution.split()
    at, value, said = rng.randrange(len(steps)), int(start), [start]
    for i, step in enumerate(steps):
        value = apply(value, step[1], int(step[2]))
        if i == at:
            value = (value + rng.randrange(1, 10)) % 10
        said.append(f"{step[:3]}={value}")
    return " ".join(said)


def _reply(solution: str, rng: Random) -> str:
    return f"{solution[-1]} for {solution}" if rng.random() < WORKED_SHARE else solution[-1]


def _marked(reply: str, answer: str) -> str:
    return f"{reply[0]}={answer} {'right' if reply[0] == answer else 'wrong'}"


def _pattern(form: Form) -> str:
    """A template as a regular expression, with a group for each of its places."""
    return re.sub(r"\\\{(query|first|second|reference|reply)\\\}", r"(?P<\1>.*)", re.escape(form.user))


def _better(kind: Kind, values: dict[str, str]) -> int:
    """The right verdict: the first reply or the second, correct or incorrect."""
    question = QUESTION.fullmatch(values["query"])
    if question is None:
        raise ValueError(f"not a question of this task: {values['query']!r}")
    right = solve(int(question[1]), question[2].split())[1]
    if kind == "reference":
        return 0 if values["reply"].startswith(right) else 1
    return 0 if values["first"].startswith(right) else 1
