"""All that the recordings need of the project: the only place here that imports its modules."""

import sys
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from models.engines.base import EngineBusy, EngineDead
from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.text.tokenizer import HubTokenizer
from server.app import Application, create_app
from server.config.load import parse_config
from tests.controllers.stories import other_tokenizer, said
from tests.judging import Reader, boxed, larger_number, same_text
from tests.virtual_time import VirtualTime

__all__ = [
    "OPENS_THINKING",
    "ROOT",
    "EngineBusy",
    "EngineDead",
    "Reader",
    "ScriptedReply",
    "Setup",
    "VirtualTime",
    "Writer",
    "app_of",
    "boxed",
    "larger_number",
    "project_modules",
    "said",
    "same_text",
]

ROOT = Path(__file__).parents[2]
TOKEN_SECONDS = 2**-6  # of an engine that is not told otherwise; sums of it are exact
PACKAGES = ("models", "controllers", "server")
OPENS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
MakeScript = Callable[[HubTokenizer], Any]


@dataclass(frozen=True)
class Writer:
    """A scripted engine to be: what makes its script, and the engine's own options. `vocabulary` is another tokenizer
    than the demo's, by the name that `other_tokenizer` knows it by; `template` another chat template."""

    script: MakeScript
    options: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: str = ""
    template: str | None = None


@dataclass(frozen=True)
class Setup:
    """A server: its configuration, its engines by name, and the API keys that it knows."""

    config: str
    writers: Mapping[str, Writer]
    keys: str = ""


def app_of(setup: Setup) -> tuple[Application, Mapping[str, ScriptedEngine]]:
    """A new server and its engines."""
    engines = {}
    for name, writer in setup.writers.items():
        tokenizer = copy(_tokenizer(writer.vocabulary, writer.template))  # what one server keeps, another does not
        options = {"context_length": 2048, "token_delay": TOKEN_SECONDS, **writer.options}
        engines[name] = ScriptedEngine(tokenizer, writer.script(tokenizer), name=name, **options)
    return create_app(parse_config(setup.config, ROOT), engines), engines


def project_modules() -> list[ModuleType]:
    """All modules of the project that are loaded, whatever they are called by now."""
    return [module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES]


@cache
def _tokenizer(vocabulary: str, template: str | None) -> HubTokenizer:
    return other_tokenizer(vocabulary) if vocabulary else HubTokenizer(ROOT / "demo/tokenizer", chat_template=template)
