"""What the whole test session shares: one event loop, one real engine in this process, one real vLLM server."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar

import httpx
import pytest

from models.engine import Engine
from models.registry import EngineSpec, load
from models.tokenizer import HubTokenizer

ROOT = Path(__file__).parent.parent
TAGS = ("<think>", "</think>")
ENGINE_ARGS = {
    "max_model_len": 1024,
    "block_size": 32,
    "kv_cache_memory_bytes": 128 * 2**20,
    "enforce_eager": True,
}
ENGINE_ENV = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
T = TypeVar("T")


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


@pytest.fixture(scope="session")
def vllm_engine(run: Run, model_folder: Path) -> Iterator[Engine]:
    """The one engine in this process. It lives in the loop of `run`."""
    spec = EngineSpec(
        name="demo", kind="vllm", model=str(model_folder), args=ENGINE_ARGS, thinking=TAGS, env=ENGINE_ENV
    )
    engine = run(load(spec), timeout=300)
    yield engine
    run(engine.close())


@pytest.fixture(scope="session")
def vllm_server(model_folder: Path) -> Iterator[str]:
    """The one vLLM server of the session: its root URL. It serves the model as `demo`."""
    with serving(model_folder) as url:
        yield url


@contextmanager
def serving(model_folder: Path) -> Iterator[str]:
    port = free_port()
    arguments = {
        **ENGINE_ARGS,
        "host": "127.0.0.1",
        "port": port,
        "model": model_folder,
        "served_model_name": "demo",
        "disable_uvicorn_access_log": True,
        "reasoning_config": json.dumps({"reasoning_start_str": TAGS[0], "reasoning_end_str": TAGS[1]}),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        command += [option] if value is True else [option, str(value)]
    environment = os.environ | ENGINE_ENV | {"VLLM_LOGGING_LEVEL": "WARNING"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            httpx.get(f"{url}/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(f"{url} was not healthy after {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
