"""Models whose conversations a program renders, not a template: those for which vLLM brings such a program along.

`ENCODERS` has vLLM's tokenizer mode for the architecture that such a model's config.json names. vLLM is imported where
one is used.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers.utils import CONFIG_NAME, cached_file

ENCODERS: Mapping[str, str] = MappingProxyType(
    {
        "DeepseekV32ForCausalLM": "deepseek_v32",
        "DeepseekV4ForCausalLM": "deepseek_v4",
        "DeepseekV4ForConditionalGeneration": "deepseek_v4",
        "DeepseekV41ForCausalLM": "deepseek_v41",
    }
)


def encoder_mode(model: str | Path, revision: str | None, told: str) -> str:
    """The mode that is `told`, or that of the model's architecture; empty where it has none."""
    if told != "auto":
        return told if told in ENCODERS.values() else ""
    config = cached_file(model, CONFIG_NAME, revision=revision, _raise_exceptions_for_missing_entries=False)
    architectures = json.loads(Path(config).read_bytes()).get("architectures") if config else None
    return next((ENCODERS[each] for each in architectures or () if each in ENCODERS), "")


def encoder(tokenizer: Any, mode: str) -> tuple[Callable[..., str], str]:
    """What renders conversations as `apply_chat_template` does, and its source. Raises `ValueError` without vLLM."""
    try:
        wrapped = getattr(import_module(f"vllm.tokenizers.{mode}"), f"get_{mode}_tokenizer")(tokenizer)
        source = inspect.getsource(import_module(f"vllm.tokenizers.{mode}_encoding"))
    except ImportError as error:
        raise ValueError(f"the model has no chat template, and vLLM's encoder {mode} is not here: {error}") from error

    def rendered(
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool,
        **arguments: Any,
    ) -> str:
        if continue_final_message:
            raise ValueError("its encoder cannot go on with a turn of the assistant")
        turns = [{**turn, "reasoning": turn.get("reasoning_content")} for turn in messages]
        text: str = wrapped.apply_chat_template(turns, tools=tools, tokenize=tokenize, **arguments)
        return text

    return rendered, source
