"""SelfBudgeter's format (arXiv 2505.11274) in one vocabulary: `<budget>N</budget><solution> reply </solution>`.

A solution is a thought and, on its last line, the family's wrap-up phrase with the answer: what a server writes to end
a solution early is what the model itself ends it with. The base writes the same solution without any tag. Lengths are
tokens between the solution tags, which is what a server's budget of this family counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controllers.generation.bounds import declared_budget
from models.engines.base import Tokenizer
from models.formats import FAMILIES
from models.formats.parser import ReplyParser
from models.formats.reasoning import ReasoningFormat
from models.formats.vocabulary import Tags, compile_tags
from training.data.errors import UserError
from training.data.replies import render_prompt


@dataclass(frozen=True, slots=True)
class BudgetReply:
    """What a reply says. `budget` is the declared one, None in a plain reply or where the field holds no number above
    0; `tokens` is the length of the solution. `complete`: the turn was ended, and the tags are the family's, in order.
    """

    budget: int | None
    tokens: int
    answer: str
    complete: bool


@dataclass(frozen=True, slots=True)
class BudgetFormat:
    """Prompts and replies as token ids. Build it with `budget_format_of`."""

    family: ReasoningFormat
    tokenizer: Tokenizer
    tags: Tags
    controls: tuple[int, ...]
    """The ids of `<budget>`, `</budget>`, `<solution>`, `</solution>`."""
    end: int
    """The id that ends the turn."""

    def render(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        return render_prompt(self.tokenizer, messages)

    def prompt(self, question: str) -> list[int]:
        return self.render([{"role": "user", "content": question}])

    def solution(self, thought: str, answer: str) -> list[int]:
        return self.tokenizer.encode(f"{thought}{self.family.wrap_up} {answer}")

    def prefill(self, budget: int) -> list[int]:
        """The budget field, filled, and the solution opened: what a server writes for a client's budget."""
        return self.tokenizer.encode_control(self.family.budget_field(budget))

    def write(self, solution: Sequence[int]) -> list[int]:
        """A whole reply with the solution's true length as its budget."""
        return [*self.prefill(len(solution)), *solution, self.controls[-1], self.end]

    def plain(self, solution: Sequence[int]) -> list[int]:
        return [*solution, self.end]

    def read_plain(self, reply: Sequence[int]) -> BudgetReply:
        """A reply of the base, which has no tags."""
        ids, ended = self._body(reply)
        return BudgetReply(None, len(ids), self._answer(ids), ended and not set(ids) & set(self.controls))

    def read(self, reply: Sequence[int]) -> BudgetReply:
        """The inverse of `write`, decided by the state machine that serves such replies."""
        ids, ended = self._body(reply)
        sections: dict[str, list[int]] = {"budget": [], "answer": [], "control": [], "reasoning": []}
        for chunk in ReplyParser(self.tags).feed(ids, [self.tokenizer.token_text(i) for i in ids]):
            sections[chunk.kind] += chunk.token_ids
        budget = declared_budget(self.tokenizer.decode(sections["budget"])) or None
        in_order = tuple(i for i in ids if i in self.controls) == self.controls and ids[0] == self.controls[0]
        closed = bool(ids) and ids[-1] == self.controls[-1]
        solution = sections["answer"]
        return BudgetReply(budget, len(solution), self._answer(solution), ended and in_order and closed)

    def _body(self, reply: Sequence[int]) -> tuple[list[int], bool]:
        ended = bool(reply) and reply[-1] == self.end
        return list(reply[:-1] if ended else reply), ended

    def _answer(self, solution: Sequence[int]) -> str:
        """What follows the last wrap-up phrase; nothing where there is none."""
        _, phrase, answer = self.tokenizer.decode(solution).rpartition(self.family.wrap_up)
        return answer.strip() if phrase else ""


def budget_format_of(name: str, tokenizer: Tokenizer) -> BudgetFormat:
    """The format of a family in a vocabulary. ValueError for a family that declares no budget, or whose tags are not
    one token each."""
    family = FAMILIES.get(name)
    if family is None or family.budget is None or family.solution is None:
        known = ", ".join(sorted(key for key, value in FAMILIES.items() if value.budget))
        raise UserError(f"family {name!r} declares no budget; these do: {known}")
    tokenizer.protect(family.texts)
    ids = [tokenizer.control_id(tag) for tag in (*family.budget, *family.solution)]
    controls = tuple(found for found in ids if found is not None)
    if len(controls) != len(ids):
        raise UserError("the budget and solution tags must be tokens of the vocabulary")
    (end,) = tokenizer.eos_ids
    tokenizer.protect(tokenizer.control_texts)
    return BudgetFormat(family, tokenizer, compile_tags(family, tokenizer), controls, end)
