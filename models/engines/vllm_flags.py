"""The flags of `vllm serve` that are meant for the engine, read by vLLM's own parser."""

import difflib
import json
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser


class FlagParser(FlexibleArgumentParser):  # type: ignore[misc]
    """Raises `ValueError`, in one line, where vLLM's parser would end the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(" ".join(message.removeprefix("argument ").split()))


def engine_flags(flags: Sequence[str]) -> dict[str, Any]:
    """The engine arguments that the flags set, by their Python names and as a configuration file would have them."""
    parser: Any = AsyncEngineArgs.add_cli_args(FlagParser(allow_abbrev=False, add_help=False))
    known: dict[str, str] = {}
    for action in parser._actions:
        action.default = SUPPRESS
        action.type = _as_written(action.type) if action.type else None
        known |= dict.fromkeys(action.option_strings, action.dest)
    for flag in flags:
        name = flag.partition("=")[0].partition(".")[0].replace("_", "-")
        if flag.startswith("--") and name not in known:
            close = ", ".join(difflib.get_close_matches(name, known)) or "none"
            raise ValueError(f"{name}: neither reasond nor vLLM's engine has this flag (similar ones: {close})")
    found: dict[str, Any] = vars(parser.parse_args(list(flags)))
    if "model" in found:
        raise ValueError("--model: the model stands first, without a flag")
    return found


def _as_written(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The value as it was written, once vLLM's own reader has taken it: not as one of its config classes."""

    def written(text: str) -> Any:
        value = read(text)
        if value is None or isinstance(value, str | int | float | bool):
            return value
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return value

    return written
