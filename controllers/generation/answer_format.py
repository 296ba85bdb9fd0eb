"""What an answer must look like: under a grammar, with tool calls in it, or both.

A grammar holds for the answer alone. Where the model thinks first, the answer is a segment of its own, with the grammar
on from its first token, so that no budget can write into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from models.engines.base import Grammar
from models.tool_calls.formats import ToolCallFormat
from models.tool_calls.grammar import answer_grammar
from models.tool_calls.tools import Choice, Tool


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """`grammar` holds the answer's text; `calls` is the format in which tool calls are read from it (None: none
    are), `tools` what may be called.

    `single` ends the answer behind its first call. `required` says that the client relies on the grammar; without it
    the grammar only keeps calls well-formed, and is left out where it cannot be had.
    """

    grammar: Grammar | None = None
    calls: ToolCallFormat | None = None
    tools: Sequence[Tool] = ()
    single: bool = False
    required: bool = False


def shape(
    written: ToolCallFormat | None,
    offered: Sequence[Tool],
    choice: Choice,
    *,
    single: bool,
    text: Grammar | None,
    constrained: bool = True,
) -> AnswerFormat | None:
    """The shape of an answer whose model writes calls as `written`. None: any text will do. Where calls cannot be
    `constrained` they are only read. Raises `ValueError` where that is not enough."""
    if choice == "none" or not offered:
        return None if text is None else AnswerFormat(text, required=True)
    must_call = choice == "required"
    if not constrained and (must_call or text is not None):
        raise ValueError("tool calls of this route's model can be read, but not forced or kept apart from a format")
    grammar = answer_grammar(written, offered, must_call=must_call, single=single, text=text) if constrained else None
    return AnswerFormat(grammar, written, offered, single, required=must_call or text is not None)
