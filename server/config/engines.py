"""The tables of engines in the configuration."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import PlainValidator, SerializeAsAny

from models.engines import EngineConfig, VllmEngineConfig, parse_engine

MEMORY_SHARES = ("kv_cache_memory_bytes", "gpu_memory_utilization")
AnyEngineConfig = Annotated[SerializeAsAny[EngineConfig], PlainValidator(parse_engine)]
"""The settings of an engine of any kind that `models.engines.ENGINES` has."""


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
