"""What a model needs of memory, from its files alone: nothing is loaded, neither torch nor vLLM imported."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.engines import VllmEngineConfig

BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
GPU_MEMORY_UTILIZATION = 0.92  # vLLM's default
FP8_BYTES = 1


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes, but for the counts of tokens. The two that depend on the device are None where it is unknown."""

    weights: int
    kv_per_token: int
    kv: int | None
    tokens: int | None
    context_length: int

    @property
    def full_contexts(self) -> float | None:
        """How many requests of full length fit at once."""
        return None if self.tokens is None else self.tokens / self.context_length


def memory_plan(engine: VllmEngineConfig, device_memory: int | None = None) -> MemoryPlan:
    """The memory of one engine over all its tensor-parallel devices, `device_memory` bytes each.

    The key-value cache is `kv_cache_memory_bytes` where that is set, else what the memory share leaves beside the
    weights; activations are not counted, so the truth is somewhat less. Layers with a sliding window or a constant
    state are counted as full ones. Raises `FileNotFoundError` for a model that is not on this machine.
    """
    folder = model_folder(engine.model, engine.args.get("revision"))
    config = json.loads((folder / "config.json").read_text())
    config = config.get("text_config", config)
    devices = int(engine.args.get("tensor_parallel_size", 1)) * int(engine.args.get("pipeline_parallel_size", 1))
    weights = sum(_tensor_bytes(path) for path in folder.glob("*.safetensors") if "consolidated" not in path.name)
    per_token = kv_bytes_per_token(config, engine.args)
    kv = _kv_budget(engine.args, weights, devices, device_memory)
    return MemoryPlan(
        weights=weights,
        kv_per_token=per_token,
        kv=kv,
        tokens=None if kv is None else kv // per_token,
        context_length=_context(engine.args, config),
    )


def kv_bytes_per_token(config: Mapping[str, Any], args: Mapping[str, Any]) -> int:
    """Bytes that one token of context takes over all layers: keys and values of every key-value head, or the
    compressed vector of multi-head latent attention."""
    dtype = args.get("dtype", "auto")
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16" if dtype == "auto" else dtype
    width = FP8_BYTES if str(args.get("kv_cache_dtype", "auto")).startswith("fp8") else BYTES[dtype]
    layers = int(config["num_hidden_layers"])
    if "kv_lora_rank" in config and config["kv_lora_rank"] is not None:
        return layers * (int(config["kv_lora_rank"]) + int(config["qk_rope_head_dim"])) * width
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    return 2 * layers * kv_heads * head_dim * width


def model_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a model's files: itself, or its snapshot in the hub's cache. Raises `FileNotFoundError`."""
    path = Path(model)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=revision, local_files_only=True))


def _context(args: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The longest context: the model's own where the arguments leave it to that."""
    asked = args.get("max_model_len")
    return int(config["max_position_embeddings"] if asked in (None, -1, "auto") else asked)


def _kv_budget(args: Mapping[str, Any], weights: int, devices: int, device_memory: int | None) -> int | None:
    if (given := args.get("kv_cache_memory_bytes")) is not None:
        return int(given) * devices
    if device_memory is None:
        return None
    share = float(args.get("gpu_memory_utilization", GPU_MEMORY_UTILIZATION))
    return max(0, int(share * device_memory * devices) - weights)


def _tensor_bytes(path: Path) -> int:
    """A safetensors file is the length of its header (8 bytes, little-endian), the header, and the tensors."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return path.stat().st_size - 8 - int(header)
