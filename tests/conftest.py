"""What the whole test session shares: one event loop, one real engine in this process, one real vLLM server."""

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from models.engines import VllmEngineConfig, load
from models.engines.base import Engine
from models.text.tokenizer import HubTokenizer
from tests.processes import vllm

ROOT = Path(__file__).parent.parent
TAGS = ("<think>", "</think>")
ENGINE_ARGS = {
    "max_model_len": 1024,
    "block_size": 32,
    "kv_cache_memory_bytes": 128 * 2**20,
    "enforce_eager": True,
}
# A model that was never taught JSON writes spaces for ever where the grammar lets it.
COMPACT = {"backend": "xgrammar", "disable_any_whitespace": True}
ENGINE_ENV = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
T = TypeVar("T")

settings.register_profile("shared machine", deadline=None)  # a busy neighbour is no failure
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "shared machine"))


STEPS: Mapping[str, Mapping[str, int]] = {
    "1": {},
    "3": {"tokens_per_step": 3},
    "random": {"tokens_per_step": 4, "step_seed": 7},
}


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A test that runs the server sets up the log of this process; the next test finds it as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in handlers:
            root.removeHandler(handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tokens-per-step",
        help="1, 3, random, or all: how many tokens a scripted engine gives at once. Left out: 1, and all three in the"
        " files that are marked every_step",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stepping" in metafunc.fixturenames:
        asked = metafunc.config.getoption("tokens_per_step")
        asked = asked or ("all" if metafunc.definition.get_closest_marker("every_step") else "1")
        names = [*STEPS] if asked == "all" else [asked]
        ids = names if names != ["1"] else [pytest.HIDDEN_PARAM]
        metafunc.parametrize("stepping", [STEPS[name] for name in names], ids=ids)


class Run(Protocol):
    def __call__(self, coroutine: Coroutine[Any, Any, T], timeout: float = 120) -> T: ...


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs a coroutine in the one event loop of the session and returns its result. The loop has a thread of its own,
    so that what it serves can be called from blocking test code too."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="test loop", daemon=True)
    thread.start()

    def run_in_loop(coroutine: Coroutine[Any, Any, T], timeout: float = 120) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout)

    yield run_in_loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def tokenizer() -> HubTokenizer:
    return HubTokenizer(ROOT / "demo" / "tokenizer")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained demo model where it is there, else a random one of its shape with the demo tokenizer."""
    demo = ROOT / "demo" / "hybrid"
    return demo if demo.is_dir() else random_model(tmp_path_factory.mktemp("model"))


def random_model(folder: Path) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=384,
        vocab_size=768,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    shutil.copytree(ROOT / "demo" / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def random_adapter(folder: Path, model_folder: Path, rank: int = 4) -> Path:
    import torch
    from safetensors.torch import save_file

    config = json.loads((model_folder / "config.json").read_text())
    width, out = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    torch.manual_seed(1)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width)
        tensors[f"{name}.lora_B.weight"] = torch.randn(out, rank)
    save_file(tensors, folder / "adapter_model.safetensors")
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="session")
def vllm_engine(run: Run, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one engine in this process, with a random LoRA adapter `other`. It lives in the loop of `run`."""
    config = VllmEngineConfig(
        model=str(model_folder),
        args={**ENGINE_ARGS, "structured_outputs_config": COMPACT},
        adapters={"other": str(random_adapter(tmp_path_factory.mktemp("adapter"), model_folder))},
        env=ENGINE_ENV,
    )
    engine = run(load("demo", config, TAGS), timeout=300)
    yield engine
    run(engine.close())


@pytest.fixture(scope="session")
def vllm_server(model_folder: Path) -> Iterator[str]:
    """The one vLLM server of the session: its root URL. It serves the model as `demo`."""
    reasoning = json.dumps({"reasoning_start_str": TAGS[0], "reasoning_end_str": TAGS[1]})
    with vllm(model_folder, {**ENGINE_ARGS, "reasoning_config": reasoning}) as (url, _):
        yield url
