"""What a chat template writes before the reply begins."""

from models.engine import Tokenizer
from models.families import Family
from models.tools import Tool

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


def shows_tools(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's template puts the tools that it is given into the prompt."""
    messages = [{"role": "user", "content": PROBE}]
    tool = Tool("look_up").as_template_input()
    return "look_up" in tokenizer.decode(tokenizer.render(messages, [tool]), skip_special_tokens=False)
