"""The engine alone, without a server: how many tokens a second the bench's replies can come at most on this machine.

`python -m tests.bench.ceiling`. The same prompts at the same concurrency go to the engine object in this process, and
nothing is made of the token ids that come back. No front end can serve more.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Iterable, Sequence

import uvloop

from models.engines import VllmEngineConfig
from models.engines.base import Engine, Prompt, Sampling
from models.engines.vllm import VllmEngine
from server.config.load import load_config
from tests.bench.__main__ import requests
from tests.processes import ENVIRONMENT, ROOT

THINK = "<think>"
MOST = 64  # tokens of a reply: more than any of these questions takes


async def tokens_of(engine: Engine, prompts: Iterable[Sequence[int]]) -> int:
    """Drains the shared iterator of prompts, one after the other. Returns the tokens that came."""
    count = 0
    for ids in prompts:
        async for delta in engine.generate(Prompt(ids), Sampling(temperature=0, max_tokens=MOST)):
            count += len(delta.token_ids)
    return count


async def main() -> None:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--concurrency", type=int, nargs="*", default=(1, 8, 32, 64))
    top.add_argument("--rounds", type=int, default=5)
    top.add_argument("--seconds", type=float, default=2.0, help="about how long a round takes")
    options = top.parse_args()
    config = load_config(ROOT / "configs/demo.toml").engines["demo"]
    assert isinstance(config, VllmEngineConfig)
    os.environ.update(ENVIRONMENT | config.env)
    engine = await VllmEngine.load(str(ROOT / config.model), name="demo", args=config.args)
    think = engine.tokenizer.encode_control(THINK)
    texts = [engine.tokenizer.render(request.messages) for request in requests(4000, True, {})]
    prompts = [(*ids, *think) for ids in texts]
    for concurrency in options.concurrency:
        share = iter(prompts * 10)
        rates = []
        for _ in range(options.rounds):
            count = max(2 * concurrency, round(options.seconds * (15 if concurrency == 1 else 120)))
            batch = iter([next(share) for _ in range(count)])
            start = time.perf_counter()
            tokens = sum(await asyncio.gather(*(tokens_of(engine, batch) for _ in range(concurrency))))
            rates.append(tokens / (time.perf_counter() - start))
        shown = " ".join(f"{rate:.0f}" for rate in sorted(rates))
        print(f"concurrency {concurrency}: median {sorted(rates)[len(rates) // 2]:.0f} tokens a second, rounds {shown}")
    await engine.close()


if __name__ == "__main__":
    uvloop.run(main())
