"""From config to engines. Imports an engine's module, and with it vLLM, only when such an engine is asked for."""

import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from models.engines.base import Engine

# vLLM reads this when it is imported. Its own default is a hundred lines of information a start.
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING"}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine as configured.

    `model` is a folder or a hub name; its tokenizer is loaded here whatever the kind. `args` belong to the kind: vLLM's
    engine arguments by their Python names; or `url`, `served_model`, `api_key`, `timeout`, `connect_timeout` of a
    remote server; or `replies` (texts, given in turn; without them random tokens, `length` of them), `context_length`,
    `first_token_delay` and `token_delay` (seconds) of a script. `adapters` gives LoRA adapters: folders by name, or for
    a remote server their served names by ours. `thinking` is the tag pair that native thinking budgets watch. `env` is
    the environment of vLLM's processes, such as `VLLM_CPU_OMP_THREADS_BIND`.
    """

    name: str
    kind: Literal["vllm", "remote", "scripted"]
    model: str
    args: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    thinking: tuple[str, str] | None = None
    chat_template: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


async def load(spec: EngineSpec) -> Engine:
    """Starts one engine. Start engines one after another: two at once would fight over free memory.

    Raises `ValueError` for an argument that the kind does not have, before anything is loaded.
    """
    if spec.kind == "vllm":
        return await _load_vllm(spec)
    if spec.kind == "remote":
        return await _connect(spec)
    return _script(spec)


async def _load_vllm(spec: EngineSpec) -> Engine:
    with _environment(QUIET | dict(os.environ) | dict(spec.env)):
        from models.engines.vllm import VllmEngine

        return await VllmEngine.load(
            spec.model,
            name=spec.name,
            args=spec.args,
            adapters=spec.adapters,
            thinking=spec.thinking,
            chat_template=spec.chat_template,
        )


async def _connect(spec: EngineSpec) -> Engine:
    from models.engines.remote import RemoteEngine
    from models.text.tokenizer import HubTokenizer

    known = {"url", "served_model", "api_key", "timeout", "connect_timeout"}
    _check_names(spec, known, required={"url"})
    tokenizer = HubTokenizer(spec.model, chat_template=spec.chat_template)
    return await RemoteEngine.connect(tokenizer=tokenizer, name=spec.name, adapters=spec.adapters, **spec.args)


def _script(spec: EngineSpec) -> Engine:
    from models.engines.scripted import ScriptedEngine, babble
    from models.text.tokenizer import HubTokenizer

    options = {"context_length", "first_token_delay", "token_delay"}
    _check_names(spec, options | {"replies", "length"})
    tokenizer = HubTokenizer(spec.model, chat_template=spec.chat_template)
    every = range(tokenizer.vocab_size)
    plain = [token_id for token_id in every if tokenizer.control_id(tokenizer.token_text(token_id)) is None]
    return ScriptedEngine(
        tokenizer,
        spec.args.get("replies") or babble(spec.args.get("length", 100), plain),
        name=spec.name,
        adapters=frozenset(spec.adapters),
        thinking=spec.thinking,
        **{option: spec.args[option] for option in options if option in spec.args},
    )


def _check_names(spec: EngineSpec, known: Set[str], required: Set[str] = frozenset()) -> None:
    if unknown := set(spec.args) - known:
        raise ValueError(f"engine {spec.name}: {spec.kind} engines have no {', '.join(sorted(unknown))}")
    if missing := required - set(spec.args):
        raise ValueError(f"engine {spec.name}: {', '.join(sorted(missing))} is missing")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The process environment while an engine starts: its processes inherit it, the next engine may want another."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
