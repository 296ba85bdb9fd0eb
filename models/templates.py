"""What a chat template writes before the reply begins."""

from models.engine import Tokenizer
from models.families import Family

PROBE = "What is 2 + 3?"


def opens_thinking(family: Family, tokenizer: Tokenizer) -> bool:
    """Whether the generation prompt of the tokenizer's template ends inside the family's thinking tag.

    Parser and template must agree on this: if they do not, thinking is served as answer or the answer as thinking.
    """
    if family.thinking is None:
        return False
    opening, closing = family.thinking
    prompt = tokenizer.decode(tokenizer.render([{"role": "user", "content": PROBE}]), skip_special_tokens=False)
    behind_the_question = prompt.rpartition(PROBE)[2]
    return behind_the_question.rfind(opening) > behind_the_question.rfind(closing)
