"""The tables of engines in the configuration."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from server.config.base import Section, resolve

MEMORY_SHARES = ("kv_cache_memory_bytes", "gpu_memory_utilization")


class EngineSection(Section):
    """`model` is a folder or a hub id. `chat_template` is a file, for a model that has no template or the wrong one."""

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


class VllmEngineConfig(EngineSection):
    """A model in this process. `args` are vLLM's own engine arguments by their Python names; `adapters` are folders. A
    draft model in vLLM's `speculative_config` is looked up as `model` is."""

    kind: Literal["vllm"]
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

    @field_validator("adapters")
    @classmethod
    def _folders(cls, adapters: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        return {name: resolve(path, info) for name, path in adapters.items()}


class RemoteEngineConfig(EngineSection):
    """A vLLM server elsewhere, spoken to in token ids. `model` is where its tokenizer is; `served_model` is its name
    there (default: the only one). `adapters` gives their names there by ours. `key_env` names the variable that holds
    the server's key. Times are seconds.
    """

    kind: Literal["remote"]
    url: str = Field(pattern=r"^https?://")
    served_model: str | None = None
    key_env: str = ""
    timeout: float | None = Field(default=None, gt=0)
    connect_timeout: float | None = Field(default=None, gt=0)


class ScriptedEngineConfig(EngineSection):
    """An engine that replays `replies` in turn, or random tokens, `length` of them: for trying clients without a model.

    Only the tokenizer of `model` is loaded. Delays are seconds.
    """

    kind: Literal["scripted"]
    replies: tuple[str, ...] = ()
    length: int = Field(default=100, ge=1)
    context_length: int = Field(default=4096, ge=2)
    first_token_delay: float = Field(default=0.0, ge=0)
    token_delay: float = Field(default=0.0, ge=0)


EngineConfig = Annotated[VllmEngineConfig | RemoteEngineConfig | ScriptedEngineConfig, Field(discriminator="kind")]


def memory_problems(all_engines: Mapping[str, EngineConfig]) -> Iterator[str]:
    """Engines that may share a device must say how much of it each takes."""
    sharing: dict[str, dict[str, VllmEngineConfig]] = {}
    for name, engine in all_engines.items():
        if isinstance(engine, VllmEngineConfig):
            sharing.setdefault(engine.env.get("CUDA_VISIBLE_DEVICES", ""), {})[name] = engine
    for engines in sharing.values():
        if len(engines) < 2:
            continue
        for name, engine in engines.items():
            if not any(share in engine.args for share in MEMORY_SHARES) and "VLLM_CPU_KVCACHE_SPACE" not in engine.env:
                yield f"engines.{name}.args: engines on one device need {' or '.join(MEMORY_SHARES)} each"
        shares = [engine.args.get("gpu_memory_utilization", 0) for engine in engines.values()]
        if all(isinstance(share, int | float) for share in shares) and sum(shares) > 1:
            yield f"engines: gpu_memory_utilization of {', '.join(engines)} adds up to {sum(shares):g}, more than 1"
