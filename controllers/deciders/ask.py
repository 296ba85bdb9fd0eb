"""The model is asked whether working the answer out would change it: one token, one of two letters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from controllers.deciders.base import DeciderConfig, ModeVerdict, Question, probability
from controllers.generation.prompt import prompt_of
from models.engines.base import Tokenizer

QUESTION = (
    "\n\nDo not answer yet. Would working this out step by step first change your answer?\n"
    "{first}) {first_text}\n{second}) {second_text}\nReply with the letter alone."
)
TEXTS = {"think": "Yes, it needs working out.", "no_think": "No, the answer is plain."}
LETTERS = ("A", "B")


class AskConfig(DeciderConfig):
    """`both_orders`: ask again with the letters swapped, and average. Models favour a letter."""

    decider: Literal["ask"] = "ask"
    both_orders: bool = False


class Ask:
    """The question stands at the end of the last user turn, so the conversation before it is in the prefix cache. The
    probabilities over-think: hold them against a threshold that was measured."""

    def __init__(
        self, config: AskConfig, tokenizer: Tokenizer, text: str = QUESTION, answers: Mapping[str, str] = TEXTS
    ) -> None:
        """Raises `ValueError` where a letter is not one token of the vocabulary."""
        letters = [tokenizer.encode(letter) for letter in LETTERS]
        if any(len(ids) != 1 for ids in letters):
            raise ValueError("the letters A and B are not one token each in this vocabulary")
        self._text, self._answers = text, answers
        self._letters = [ids[0] for ids in letters]
        self._orders: tuple[tuple[str, str], ...] = (("think", "no_think"), ("no_think", "think"))
        self._orders = self._orders[: 1 + config.both_orders]

    async def decide(self, question: Question) -> ModeVerdict | None:
        p_think = await self.p_think(question)
        return None if p_think is None else question.verdict("ask", p_think)

    async def p_think(self, question: Question) -> float | None:
        """The probability of the answer that speaks for thinking. None where the client cancels."""
        found: list[float] = []
        for order in self._orders:
            first = await self._first_letter(question, order)
            if first is None:
                return None
            found.append(first if order[0] == "think" else 1.0 - first)
        return sum(found) / len(found)

    async def _first_letter(self, question: Question, order: tuple[str, str]) -> float | None:
        """The probability of the first letter."""
        (first, second), (one, other) = LETTERS, order
        text = self._text.format(
            first=first, second=second, first_text=self._answers[one], second_text=self._answers[other]
        )
        turns = asking(question.request.messages, text)
        request = replace(question.request, messages=turns, tools=(), continue_final=False)
        prompt = await prompt_of(question.route, request, "no_think", question.policy)
        return await probability(question, prompt, *self._letters)


def asking(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The conversation with a text at the end of its last user turn; behind another turn, with a turn of its own."""
    *earlier, last = messages
    content = last.get("content")
    if last.get("role") == "user" and content is not None:
        more = content + text if isinstance(content, str) else [*content, {"type": "text", "text": text}]
        return [*earlier, {**last, "content": more}]
    return [*messages, {"role": "user", "content": text.lstrip()}]
