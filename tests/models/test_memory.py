import json
import struct
from pathlib import Path

import pytest

from models.engines import VllmEngineConfig
from models.memory import kv_bytes_per_token, memory_plan

CONFIG = {
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size": 128,
    "max_position_embeddings": 2048,
    "dtype": "bfloat16",
}


def write_model(folder: Path, tensor_bytes: int) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps({"weight": {"dtype": "U8", "shape": [tensor_bytes], "data_offsets": [0, tensor_bytes]}})
    content = struct.pack("<Q", len(header)) + header.encode() + b"\0" * tensor_bytes
    (folder / "model.safetensors").write_bytes(content)
    return folder


def engine(model: Path, **args: object) -> VllmEngineConfig:
    return VllmEngineConfig(model=str(model), args=args)


def test_keys_and_values_of_every_key_value_head() -> None:
    assert kv_bytes_per_token(CONFIG, {}) == 2 * 4 * 2 * 32 * 2  # k and v, layers, heads, head size, bytes


def test_an_eight_bit_cache_takes_half() -> None:
    assert kv_bytes_per_token(CONFIG, {"kv_cache_dtype": "fp8"}) == 2 * 4 * 2 * 32


def test_latent_attention_keeps_one_vector() -> None:
    config = CONFIG | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert kv_bytes_per_token(config, {}) == 4 * (512 + 64) * 2


def test_a_given_cache_size_needs_no_device(tmp_path: Path) -> None:
    plan = memory_plan(engine(write_model(tmp_path, 5000), kv_cache_memory_bytes=1024 * 100, max_model_len=50))
    assert (plan.weights, plan.kv_per_token, plan.kv) == (5000, 1024, 102400)
    assert (plan.tokens, plan.context_length, plan.full_contexts) == (100, 50, 2.0)


def test_the_cache_gets_what_the_share_leaves(tmp_path: Path) -> None:
    plan = memory_plan(engine(write_model(tmp_path, 5000), gpu_memory_utilization=0.5), device_memory=20000)
    assert (plan.kv, plan.tokens, plan.context_length) == (5000, 4, 2048)


def test_an_unknown_device_leaves_the_cache_open(tmp_path: Path) -> None:
    plan = memory_plan(engine(write_model(tmp_path, 5000)))
    assert (plan.kv, plan.tokens, plan.full_contexts) == (None, None, None)


def test_a_model_that_is_not_here_is_not_fetched() -> None:
    with pytest.raises(FileNotFoundError):
        memory_plan(VllmEngineConfig(model="nobody/has-this-model"))
