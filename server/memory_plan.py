"""The memory plan of a configuration, in words: what `reasond check` prints."""

from collections.abc import Iterator

from models.engines import VllmEngineConfig
from models.memory import MemoryPlan, memory_plan
from server.config.load import Config

GIB = 1024**3


def plan_lines(config: Config, device_memory_gib: float | None = None) -> Iterator[str]:
    """One line for each engine that holds its model in this machine's memory."""
    device_memory = None if device_memory_gib is None else int(device_memory_gib * GIB)
    for name, engine in config.engines.items():
        if not isinstance(engine, VllmEngineConfig):
            continue
        try:
            plan = memory_plan(engine, device_memory)
        except FileNotFoundError:
            yield f"memory of {name}: {engine.model} is not on this machine yet"
        else:
            yield f"memory of {name}: {_words(plan)}"


def _words(plan: MemoryPlan) -> str:
    need = f"weights {_size(plan.weights)}, cache {_size(plan.kv_per_token)} a token"
    if plan.kv is None or plan.tokens is None or plan.full_contexts is None:
        return f"{need}; a full context of {plan.context_length} takes {_size(plan.kv_per_token * plan.context_length)}"
    return f"{need}; {_size(plan.kv)} of cache hold {plan.tokens} tokens, {plan.full_contexts:.1f} full contexts"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
