"""The table of engines: for each `kind` of the configuration its settings and its loader. Nothing else to edit.

An engine's own module, and with it vLLM or transformers, is imported when such an engine is loaded.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from models.config import Section, resolve
from models.engines.base import Engine
from models.engines.processes import environment
from models.engines.supervised import SupervisionConfig

if TYPE_CHECKING:
    from models.text.tokenizer import HubTokenizer

Tags = tuple[str, str]
Url = Annotated[str, Field(pattern=r"^https?://")]


class EngineConfig(Section):
    """`[engines.NAME]`. `model` is a folder or a hub id. `chat_template` is a file, for a model that has no template or
    the wrong one. `adapters` gives LoRA adapters by our names."""

    kind: str
    model: str = Field(min_length=1)
    chat_template: str = ""
    adapters: dict[str, str] = Field(default_factory=dict)

    @field_validator("model")
    @classmethod
    def _resolved(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info)

    @field_validator("chat_template")
    @classmethod
    def _template_exists(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info, must_exist=True) if value else ""

    @property
    def template(self) -> str | None:
        """The text of the chat template's file; None: the model's own."""
        return Path(self.chat_template).read_text(encoding="utf-8") if self.chat_template else None

    def load_tokenizer(self) -> "HubTokenizer":
        """The tokenizer of `model`, with its template."""
        from models.text.tokenizer import HubTokenizer

        return HubTokenizer(self.model, chat_template=self.template)


class LocalEngineConfig(EngineConfig):
    """A model in this process: its engine can be started again."""

    supervision: SupervisionConfig = SupervisionConfig()


class VllmEngineConfig(LocalEngineConfig):
    """A model that vLLM runs here. `args` are vLLM's own engine arguments by their Python names; `adapters` are
    folders. A draft model in vLLM's `speculative_config` is looked up as `model` is. `env` is the environment of its
    processes."""

    kind: Literal["vllm"] = "vllm"
    args: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)

    @field_validator("args")
    @classmethod
    def _plain_arguments(cls, args: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in args:
            if "-" in name:
                raise ValueError(f"write {name!r} with underscores")
        if "model" in args:
            raise ValueError("'model' has its own key in the engine's table")
        drafts = args.get("speculative_config")
        if isinstance(drafts, dict) and "model" in drafts:
            return {**args, "speculative_config": {**drafts, "model": resolve(drafts["model"], info)}}
        return args

    def load_tokenizer(self) -> "HubTokenizer":
        """As vLLM is told to load it."""
        from models.text.tokenizer import HubTokenizer

        return HubTokenizer(
            self.args.get("tokenizer") or self.model,
            chat_template=self.template,
            revision=self.args.get("tokenizer_revision") or self.args.get("revision"),
            mode=self.args.get("tokenizer_mode", "auto"),
        )

    @field_validator("adapters")
    @classmethod
    def _folders(cls, adapters: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        return {name: resolve(path, info) for name, path in adapters.items()}


class KeptVllmEngineConfig(VllmEngineConfig):
    """A model whose core several processes share: the server makes this out of `VllmEngineConfig`. `keeper` is the
    socket of the process that runs the core."""

    keeper: str


class RemoteEngineConfig(EngineConfig):
    """A vLLM server elsewhere, spoken to in token ids. `model` is where its tokenizer is; `served_model` is its name
    there (default: the only one). `adapters` gives their names there by ours. `key_env` names the variable that holds
    the server's key. Times are seconds; `timeout` is the longest silence.

    `urls`, or the lines of `urls_file`, are several servers of the same model, looked at every `check_seconds`. The
    file is read each time: a server that it no longer names is drained.
    """

    kind: Literal["remote"] = "remote"
    url: Url | None = None
    urls: tuple[Url, ...] = ()
    urls_file: str = ""
    check_seconds: float = Field(default=2.0, gt=0)
    served_model: str | None = None
    key_env: str = ""
    timeout: float = Field(default=600.0, gt=0)
    connect_timeout: float = Field(default=10.0, gt=0)

    @field_validator("urls_file")
    @classmethod
    def _file_exists(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info, must_exist=True) if value else ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(map(bool, (self.url, self.urls, self.urls_file))) != 1:
            raise ValueError("needs one of url, urls and urls_file")
        return self

    def servers(self) -> Sequence[str]:
        """The servers of now, where there may be several."""
        if not self.urls_file:
            return self.urls
        lines = Path(self.urls_file).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


class ScriptedEngineConfig(LocalEngineConfig):
    """An engine that replays `replies` in turn, or random tokens, `length` of them: for trying clients without a model.

    Only the tokenizer of `model` is loaded. Delays are seconds. A step has `tokens_per_step` tokens; with a `step_seed`
    it has one to that many, drawn at random.
    """

    kind: Literal["scripted"] = "scripted"
    replies: tuple[str, ...] = ()
    length: int = Field(default=100, ge=1)
    context_length: int = Field(default=4096, ge=2)
    first_token_delay: float = Field(default=0.0, ge=0)
    token_delay: float = Field(default=0.0, ge=0)
    tokens_per_step: int = Field(default=1, ge=1)
    step_seed: int | None = None


Load = Callable[[str, Any, Tags | None], Awaitable[Engine]]
"""Starts one engine from its name, its settings and the tag pair that native thinking budgets watch."""


@dataclass(frozen=True, slots=True)
class EngineKind:
    """`check` raises what would keep an engine from starting, as far as can be told without its weights."""

    config: type[EngineConfig]
    load: Load
    check: Callable[[Any], None] = lambda config: None


@contextmanager
def _with_vllm(env: Mapping[str, str]) -> Iterator[None]:
    """The environment that vLLM reads when it is imported. Raises `ValueError` where it cannot be."""
    level = "INFO" if logging.getLogger().isEnabledFor(logging.DEBUG) else "WARNING"
    with environment({"VLLM_LOGGING_LEVEL": level, **os.environ, **env}):
        try:
            yield
        except ImportError as error:
            raise ValueError(f"kind 'vllm' needs vLLM (extra cpu or gpu), which cannot be imported: {error}") from error


async def _load_vllm(name: str, config: VllmEngineConfig, thinking: Tags | None) -> Engine:
    with _with_vllm(config.env):
        from models.engines.vllm import VllmEngine

        return await VllmEngine.load(
            config.model,
            name=name,
            args=config.args,
            adapters=config.adapters,
            thinking=thinking,
            chat_template=config.template,
            keeper=config.keeper if isinstance(config, KeptVllmEngineConfig) else "",
        )


def keep(
    config: VllmEngineConfig,
    thinking: Tags | None,
    listener: socket,
    processes: int,
    up: Callable[[], None],
    cause: Callable[[], str],
) -> None:
    """Runs the core of an engine that several processes share, until this one ends. See `vllm_keeper`."""
    with _with_vllm(config.env):
        from models.engines.vllm import engine_arguments
        from models.engines.vllm_keeper import keep_core

        keep_core(
            engine_arguments(config.model, config.args, config.adapters, thinking), listener, processes, up, cause
        )


def _check_vllm(config: VllmEngineConfig) -> None:
    with _with_vllm(config.env):
        from models.engines.vllm import engine_arguments

        engine_arguments(config.model, config.args, config.adapters, None).create_engine_config()


def vllm_arguments(flags: Sequence[str]) -> dict[str, Any]:
    """Engine arguments for `args` from flags of `vllm serve`. Raises `ValueError` with the flag that vLLM refuses."""
    with _with_vllm({}):
        from models.engines.vllm_flags import engine_flags

        return engine_flags(flags)


async def _connect(name: str, config: RemoteEngineConfig, thinking: Tags | None) -> Engine:
    from models.engines.fleet import RemoteFleet
    from models.engines.remote import RemoteEngine

    if config.key_env and not os.environ.get(config.key_env):
        raise ValueError(f"key_env: the environment has no {config.key_env}")
    connect = partial(
        RemoteEngine.connect,
        tokenizer=config.load_tokenizer(),
        name=name,
        served_model=config.served_model,
        adapters=config.adapters,
        api_key=os.environ.get(config.key_env) if config.key_env else None,
        timeout=config.timeout,
        connect_timeout=config.connect_timeout,
    )
    if config.url is not None:
        return await connect(config.url)
    return await RemoteFleet.start(name, config.servers, connect, config.check_seconds)


async def _load_script(name: str, config: ScriptedEngineConfig, thinking: Tags | None) -> Engine:
    from models.engines.scripted import ScriptedEngine, babble, plain_tokens

    tokenizer = config.load_tokenizer()
    return ScriptedEngine(
        tokenizer,
        config.replies or babble(config.length, plain_tokens(tokenizer)),
        name=name,
        context_length=config.context_length,
        adapters=frozenset(config.adapters),
        thinking=thinking,
        first_token_delay=config.first_token_delay,
        token_delay=config.token_delay,
        tokens_per_step=config.tokens_per_step,
        step_seed=config.step_seed,
    )


ENGINES: dict[str, EngineKind] = {
    "vllm": EngineKind(VllmEngineConfig, _load_vllm, _check_vllm),
    "remote": EngineKind(RemoteEngineConfig, _connect),
    "scripted": EngineKind(ScriptedEngineConfig, _load_script),
}


def parse_engine(value: Any, info: ValidationInfo) -> EngineConfig:
    """The settings of one engine, read by the class of its kind. For pydantic, as the validator of a field."""
    if isinstance(value, EngineConfig):
        return value
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in ENGINES:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(ENGINES)}")
    return ENGINES[kind].config.model_validate(value, context=info.context)


async def load(name: str, config: EngineConfig, thinking: Tags | None = None) -> Engine:
    """Starts one engine. Start engines one after another: two at once would fight over free memory.

    Raises `ValueError` for settings that cannot work, before anything is loaded.
    """
    return await ENGINES[config.kind].load(name, config, thinking)


def check(config: EngineConfig) -> None:
    """Raises what would keep the engine from starting here, as far as that can be told without loading it."""
    ENGINES[config.kind].check(config)
