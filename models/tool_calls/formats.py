"""How a kind of model writes tool calls: one string gives parser and grammar."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import ConfigDict

Named = Literal[
    "json", "qwen_xml", "glm_xml", "minimax_xml", "minimax_m3_xml", "deepseek_xml", "kimi_k3_xml", "gemma", "python"
]


@dataclass(frozen=True, slots=True)
class ArgumentStyle:
    """How one argument of an XML-like style is written: `head` with `$key` (and `$type`, where the text names it), the
    value, and `end`, perhaps with `$key`. A line break around the value is layout where `head` ends with one, or `end`
    begins with one."""

    head: str
    end: str
    strings: tuple[str, ...] = ()  # values of `$type` that say that the value is a string
    __pydantic_config__ = ConfigDict(extra="forbid")


STYLES: Mapping[str, ArgumentStyle] = MappingProxyType(
    {
        "qwen_xml": ArgumentStyle("<parameter=$key>\n", "\n</parameter>"),
        "glm_xml": ArgumentStyle("<arg_key>$key</arg_key>\n<arg_value>", "</arg_value>"),
        "minimax_xml": ArgumentStyle('<parameter name="$key">', "</parameter>"),
        "minimax_m3_xml": ArgumentStyle("]<]minimax[>[<$key>", "]<]minimax[>[</$key>"),
        "deepseek_xml": ArgumentStyle(
            '<｜DSML｜parameter name="$key" string="$type">', "</｜DSML｜parameter>", ("true",)
        ),
        "kimi_k3_xml": ArgumentStyle(
            '<|open|>argument key="$key" type="$type"<|sep|>', "<|close|>argument<|sep|>", ("string",)
        ),
    }
)
READ_WHOLE = ("gemma", "python")
"""Styles that are read at the end of the arguments only."""
PARSED_ONLY = (*READ_WHOLE, "own")
"""Styles for which no grammar exists."""


@dataclass(frozen=True, slots=True)
class ToolCallFormat:
    """`open`, then `call` with its holes `$name`, `$arguments` and perhaps `$id`, then `close`; `separator` stands
    between two calls. With `one_block` calls share `open` and `close`. An empty `open` means that an answer is nothing
    but calls. `also` are further spellings of `open` and `call`, which are read and not written."""

    open: str
    call: str
    close: str
    separator: str = ""
    arguments: Named | ArgumentStyle = "json"
    one_block: bool = False
    also: tuple[tuple[str, str], ...] = ()
    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for call in (self.call, *(call for _, call in self.also)):
            if "$name" not in call.partition("$arguments")[0] or call.count("$arguments") != 1:
                raise ValueError("call: needs $name, and behind it $arguments once")
        if not self.open and not self.one_block:
            raise ValueError("open: may be empty only with one_block")

    @property
    def spellings(self) -> tuple[tuple[str, str], ...]:
        return ((self.open, self.call), *self.also)

    @property
    def ending(self) -> str:
        """What stands between the arguments and the close, or the next call."""
        return self.call.partition("$arguments")[2]

    @property
    def style_name(self) -> str:
        """The name of the style of arguments; `own` where the format describes it itself."""
        return self.arguments if isinstance(self.arguments, str) else "own"

    @property
    def style(self) -> ArgumentStyle | None:
        """How one argument is written, where they are written one by one."""
        return STYLES.get(self.arguments) if isinstance(self.arguments, str) else self.arguments

    @property
    def texts(self) -> tuple[str, ...]:
        style = self.style
        spelled = (part for spelling in self.spellings for part in spelling)
        inside = (style.head, style.end) if style else ('<|"|>',) if self.arguments == "gemma" else ()
        return (*spelled, self.close, self.separator, *inside)
