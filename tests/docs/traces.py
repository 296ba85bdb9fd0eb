"""Which of our files run for a request or a training step: a profiler notes each file at its first call.

A second request to the same server is traced, so that what is made once for all requests does not count.
"""

import asyncio
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from inspect import CO_ASYNC_GENERATOR
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import orjson

from tests.docs.files import FOLDERS, ROOT
from tests.recorded.cases import CASES
from tests.recorded.project import app_of

CHAT, SPECULATIVE, RANK = "chat/auto-thinks-stream", "speculative/takeover-stream", "rewards/rank"
RECIPE = """
method = "hgpo"
steps = 2
questions = 2
replies = 4
micro_batch = 8
max_new_tokens = 8
data = {{ task = "demo.tasks.chain:Chain", difficulties = [1, 2] }}
optimizer = {{ lr = 1e-3 }}
run = {{ out = "{out}", log_every = 1 }}
[model]
path = "demo/tokenizer"
scratch = {{ hidden = 32, layers = 1, heads = 2, feed_forward = 64, context = 256 }}
"""


@dataclass
class Trace:
    """Files by their path from the root, in the order of their first calls, while the block runs.

    `generators` is the most async generators of ours above the engine's in one task. `tokens`
    holds the files that ran from one delta of the engine to the next.
    """

    files: list[str] = field(default_factory=list)
    tokens: list[list[str]] = field(default_factory=list)
    generators: int = 0
    _ours: dict[str, str | None] = field(default_factory=dict)

    def __enter__(self) -> "Trace":
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def of_one_token(self) -> list[str]:
        """Those that run for a quarter of the tokens or more: a token's way may cross the next one's."""
        counts = Counter(file for files in self.tokens for file in files)
        return [file for file, count in counts.items() if 4 * count >= len(self.tokens)]

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (file := self._file(frame)) is None:
            return
        if file.startswith("models/engines/") and frame.f_code.co_flags & CO_ASYNC_GENERATOR:
            self.generators = max(self.generators, self._above(frame))
            self.tokens.append([])
        for files in (self.files, *self.tokens[-1:]):
            if file not in files:
                files.append(file)

    def _above(self, frame: FrameType) -> int:
        count, caller = 0, frame.f_back
        while caller is not None:
            file = self._file(caller)
            count += bool(file and not file.startswith("models/") and caller.f_code.co_flags & CO_ASYNC_GENERATOR)
            caller = caller.f_back
        return count

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._ours:
            path = Path(name)
            inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            self._ours[name] = inside if inside.split("/")[0] in FOLDERS else None
        return self._ours[name]


def request(name: str) -> Trace:
    """The trace of the first request of a recorded case."""
    return asyncio.run(_request(name))


async def _request(name: str) -> Trace:
    (case,) = (case for case in CASES if case.name == name)
    ask, (app, _) = case.asks[0], app_of(case.setup)
    trace = Trace()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reasond") as client:
        for seed in range(2):
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # threads that are profiled
            trace = Trace()
            with trace:
                answer = await client.request(ask.method, ask.path, content=orjson.dumps({**ask.body, "seed": seed}))
            assert answer.status_code == 200, answer.text
    return trace


def hgpo_step(out: Path) -> Trace:
    """The trace from the end of a first HGPO step to the end of the second, on a micro model."""
    from trl import GRPOTrainer

    from training.cli import main

    trace, steps, step = Trace(), 0, GRPOTrainer.training_step

    def traced(*args: Any, **options: Any) -> Any:
        nonlocal steps
        loss = step(*args, **options)
        steps += 1
        trace.__enter__() if steps == 1 else trace.__exit__()
        return loss

    recipe = out / "recipe.toml"
    recipe.write_text(RECIPE.format(out=out / "run"), encoding="utf-8")
    GRPOTrainer.training_step = traced
    try:
        assert main([str(recipe)]) == 0 and steps == 2
    finally:
        GRPOTrainer.training_step = step
        trace.__exit__()
    return trace
