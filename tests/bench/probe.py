"""A threshold's two ways to a decision, side by side: `python -m tests.bench.probe`.

`probe` is what the server does: one token restricted to the two mode tokens, then the reply on the cached prompt.
`abort` starts the reply at once, reads the two probabilities from its first token, and throws it away where the
threshold wants the other mode. `plain` is `auto` without a threshold. One engine in this process, rounds in turn; the
ratios to `plain` and to each other are printed, with the least and the greatest of the rounds.
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from statistics import median

import uvloop

from controllers import reply
from controllers.generation.events import Conversation
from controllers.generation.route import Route, build_route
from controllers.policy.fold import Defaults, Policy
from loadtest.load.workload import last_digit
from models.engines import VllmEngineConfig
from models.engines.base import Prompt, Sampling
from models.engines.vllm import VllmEngine
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from server.config.load import load_config
from tests.processes import ENVIRONMENT, ROOT

THRESHOLD = 0.5
SAMPLING = Sampling(temperature=1.0, max_tokens=64)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds: the whole round's, and the median reply's to its first text."""

    wall: float
    first: float


Way = Callable[[Route, Conversation], Awaitable[float]]


async def controlled(route: Route, request: Conversation, threshold: float | None) -> float:
    begun, first = time.perf_counter(), math.inf
    async with aclosing(reply.run(route, request, Policy("auto", "route", threshold), SAMPLING)) as events:
        async for event in events:
            if first == math.inf and isinstance(event, Chunk) and event.text:
                first = time.perf_counter() - begun
    return first


async def plain(route: Route, request: Conversation) -> float:
    return await controlled(route, request, None)


async def probe(route: Route, request: Conversation) -> float:
    return await controlled(route, request, THRESHOLD)


async def abort(route: Route, request: Conversation) -> float:
    begun = time.perf_counter()
    think, direct = (route.prefixes[wish][0] for wish in ("think", "no_think"))
    prompt = route.engine.tokenizer.render(request.messages)
    with_probabilities = replace(SAMPLING, logprobs=0, logprob_token_ids=(think, direct))
    count, first, other = 0, math.inf, None
    async with aclosing(route.engine.generate(Prompt(prompt), with_probabilities)) as stream:
        async for delta in stream:
            if count == 0 and delta.logprobs:
                known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                p_think = 1 / (1 + math.exp(known[direct] - known[think]))
                wanted = think if p_think >= THRESHOLD else direct
                if delta.token_ids[0] != wanted:
                    other = wanted
                    break
            count += len(delta.token_ids)
            if first == math.inf and count > 1:
                first = time.perf_counter() - begun
    if other is not None:
        async with aclosing(route.engine.generate(Prompt([*prompt, other]), SAMPLING)) as stream:
            async for _ in stream:
                first = min(first, time.perf_counter() - begun)
    return first


async def one_round(way: Way, route: Route, requests: Iterator[Conversation], concurrency: int, count: int) -> Round:
    firsts: list[float] = []
    batch = iter([next(requests) for _ in range(count)])

    async def worker() -> None:
        for request in batch:
            firsts.append(await way(route, request))

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return Round(time.perf_counter() - begun, median(firsts))


def told(name: str, ours: Sequence[Round], theirs: Sequence[Round]) -> str:
    def of(part: Callable[[Round], float]) -> str:
        ratios = [part(a) / part(b) for a, b in zip(ours, theirs, strict=True)]
        return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"

    wall, first = of(lambda one: one.wall), of(lambda one: one.first)
    milliseconds = (1e3 * median(one.first for one in rounds) for rounds in (ours, theirs))
    return f"{name}: wall {wall}, first text {first}, {' and '.join(f'{ms:.1f}' for ms in milliseconds)} ms"


async def main() -> None:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=9)
    top.add_argument("--concurrency", type=int, nargs="*", default=(1, 32))
    top.add_argument("--depths", type=int, nargs="*", default=(8,))
    top.add_argument("--model", help="default: the demo's; the HFT stage, demo/hybrid/hft, is the one that wavers")
    options = top.parse_args()
    config = load_config(ROOT / "configs/demo.toml").engines["demo"]
    assert isinstance(config, VllmEngineConfig)
    os.environ.update(ENVIRONMENT | config.env)
    engine = await VllmEngine.load(options.model or config.model, name="demo", args=config.args)
    route = build_route("demo", reply.run, FAMILIES["lhrm"], engine, Defaults("auto"))
    drawn = last_digit(100_000, seed=5, depths=options.depths)
    requests = iter([Conversation(list(one.messages)) for one in drawn])
    ways: Mapping[str, Way] = {"plain": plain, "probe": probe, "abort": abort}
    for way in ways.values():
        await one_round(way, route, requests, 32, 64)
    for concurrency in options.concurrency:
        rounds: dict[str, list[Round]] = {name: [] for name in ways}
        for number in range(options.rounds):
            order = list(ways)[number % 3 :] + list(ways)[: number % 3]
            for name in order:
                done = await one_round(ways[name], route, requests, concurrency, 20 if concurrency == 1 else 256)
                rounds[name].append(done)
        for ours, theirs in (("probe", "plain"), ("abort", "plain"), ("probe", "abort")):
            print(f"concurrency {concurrency}, " + told(f"{ours} over {theirs}", rounds[ours], rounds[theirs]))
    await engine.close()


if __name__ == "__main__":
    uvloop.run(main())
