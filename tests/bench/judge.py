"""Judge throughput: comparisons a second of `/v1/rewards/rank`, against the same votes sent straight to the engine.
`python -m tests.bench.judge`.

Callers at once each have groups of replies ranked, one group after the other, over HTTP, with the cache of verdicts
off. What the engine is asked meanwhile is written down, and then asked again without a server, as fast as the engine
takes it: all at once where it takes any number (a script), else as many requests in flight as the judge has. Both sides
are in one process on one engine, and alternate. Prefix caching is off: the second
side would find the first one's prompts.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import comb
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import httpx
import orjson
import uvloop

from controllers.judging.settings import JudgeConfig
from demo.tasks import TASKS
from models.engines.base import Delta, Engine, Prompt, Sampling
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import Config, parse_config
from server.engines import start_engines
from server.serve import build_server
from tests.processes import ROOT
from tests.server.running import running
from training.data.questions import draw

SETTINGS = """
[server]
port = 0

[engines.judge]
kind = "vllm"
model = "{model}"
args = {{ max_model_len = 1024, block_size = 32, max_num_seqs = 128, enable_prefix_caching = false }}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1" }}

[routes.judge]
engine = "judge"
family = "lhrm"
mode = "think"
controller = "judge"
sampling = {{ temperature = 1.0, max_tokens = 96 }}

[routes.judge.judge]
family = "rrm_short"
cache_size = 0
concurrency = {concurrency}
"""


class Recorder:
    """An engine that writes down what it is asked while `asked` is a list."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: list[tuple[Prompt, Sampling]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        if self.asked is not None:
            self.asked.append((prompt, sampling))
        return self._engine.generate(prompt, sampling)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of both sides for the same work."""

    comparisons: int
    votes: int
    served: float
    direct: float

    @property
    def ratio(self) -> float:
        return self.direct / self.served


def main() -> None:
    options = parser().parse_args()
    rounds = uvloop.run(measure(options))
    print(report(rounds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps([vars_of(one) for one in rounds], option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--engine", choices=("vllm", "scripted"), default="vllm")
    top.add_argument("--model", type=Path, default=ROOT / "demo/judge")
    top.add_argument("--callers", type=int, default=16)
    top.add_argument("--groups", type=int, default=2, help="that each caller has ranked in a round")
    top.add_argument("--replies", type=int, default=8)
    top.add_argument("--votes", type=int, default=5)
    top.add_argument("--rounds", type=int, default=4)
    top.add_argument("--out", type=Path, default=ROOT / "runs/bench-judge.json")
    return top


async def measure(options: argparse.Namespace) -> list[Round]:
    in_flight = most_votes(options) if options.engine == "scripted" else JudgeConfig().concurrency
    config = parse_config(SETTINGS.format(model=options.model, concurrency=in_flight), ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    async with AsyncExitStack() as stack:
        engine = scripted(options.model) if options.engine == "scripted" else await started(config, stack)
        recorder = Recorder(engine)
        url = await stack.enter_async_context(running(build_server(config, create_app(config, {"judge": recorder}))))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=None))
        await served(client, options, seed=-1)  # warms both up
        return [await one(client, recorder, options, seed, in_flight) for seed in range(options.rounds)]


def most_votes(options: argparse.Namespace) -> int:
    """All votes of a round, if each of its comparisons takes all of its own."""
    return int(options.callers * options.groups * comb(options.replies, 2) * options.votes)


async def started(config: Config, stack: AsyncExitStack) -> Engine:
    return (await start_engines(config, stack))["judge"]


def scripted(model: Path) -> Engine:
    """An engine that takes any number of requests at a time, and 0.3 seconds for each: what is measured is our own
    processor time. Its verdicts are drawn from the prompt and the seed."""

    def write(prompt: Prompt, sampling: Sampling) -> str:
        side = Random(f"{sum(prompt.token_ids)} {sampling.seed}").randint(1, 2)
        return f"<think>{'2 a*3=6 ' * 8}</think>\\boxed{{Assistant {side}}}"

    return ScriptedEngine(HubTokenizer(model), write, name="judge", first_token_delay=0.05, token_delay=0.005)


async def one(
    client: httpx.AsyncClient, recorder: Recorder, options: argparse.Namespace, seed: int, in_flight: int
) -> Round:
    """The same work on both sides. The direct side repeats what the server asked, so it cannot come first."""
    recorder.asked = []
    seconds = await served(client, options, seed)
    asked, recorder.asked = recorder.asked, None
    again = await direct(recorder, asked, in_flight)
    comparisons = options.callers * options.groups * comb(options.replies, 2)
    found = Round(comparisons, len(asked), seconds, again)
    print(
        f"round {seed}: {found.votes} votes, served {seconds:.1f} s, direct {again:.1f} s, {found.ratio:.3f}",
        flush=True,
    )
    return found


async def served(client: httpx.AsyncClient, options: argparse.Namespace, seed: int) -> float:
    """Seconds until all callers have all their groups ranked."""
    bodies = [
        [body(options, Random(f"{seed} {caller} {i}")) for i in range(options.groups)]
        for caller in range(options.callers)
    ]

    async def caller(mine: Sequence[dict[str, Any]]) -> None:
        for sent in mine:
            answer = await client.post("/v1/rewards/rank", json=sent)
            answer.raise_for_status()

    began = time.perf_counter()
    await asyncio.gather(*(caller(mine) for mine in bodies))
    return time.perf_counter() - began


def body(options: argparse.Namespace, rng: Random) -> dict[str, Any]:
    """A question and replies to it, all different, so that no comparison is settled by their text."""
    question = draw(TASKS["chain"], 8, "test", rng)
    replies = rng.sample([str(digit) for digit in range(10)], options.replies)
    return {"query": question.text, "replies": replies, "votes": options.votes, "seed": rng.randrange(2**31)}


async def direct(engine: Recorder, asked: Sequence[tuple[Prompt, Sampling]], concurrency: int) -> float:
    """Seconds until the engine has answered all requests, `concurrency` of them in flight."""
    left = iter(asked)

    async def worker() -> None:
        for prompt, sampling in left:
            async for _ in engine.generate(prompt, sampling):
                pass

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - began


def vars_of(one: Round) -> dict[str, Any]:
    return {"comparisons": one.comparisons, "votes": one.votes, "served": one.served, "direct": one.direct}


def report(rounds: Sequence[Round]) -> str:
    ratios = [one.ratio for one in rounds]
    error = stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    rate = sum(one.comparisons for one in rounds) / sum(one.served for one in rounds)
    votes = fmean(one.votes / one.comparisons for one in rounds)
    return (
        f"{rate:.1f} comparisons/s of {votes:.2f} votes each;"
        f" over the engine alone: {fmean(ratios):.3f} (standard error {error:.3f}, {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
