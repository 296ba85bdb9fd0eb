"""Throughput of Speculative Thinking: `python -m tests.bench.speculative --small PATH --target PATH`.

The engines run in this process, as in the server, and everybody asks the same two: the route's controller with many
requests at once and with one, the loop of the authors' script (in one vocabulary), and the target alone; `--drafts`
adds the target with vLLM's own speculative decoding, `--scripted` takes scripts in place of models. Rounds alternate
between them; each gives one ratio of requests per second, the interval is over the rounds. Writes JSON.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import orjson
import uvloop

from controllers.generation.events import Conversation, Finished
from controllers.generation.route import Route
from controllers.policy.fold import Policy
from loadtest.analysis.distribution import Interval, mean_ratio
from models.engines.base import Sampling
from server.assemble import assemble
from server.engines import start_engines
from tests.bench.one_at_a_time import Loop
from tests.bench.pair import CONFIG, configured, questions, scripted
from tests.processes import ROOT

THINK = Policy("think", "client")


@dataclass(slots=True)
class Count:
    """What one side did in all its rounds."""

    replies: int = 0
    tokens: int = 0
    target_tokens: int = 0
    requests: int = 0
    hand_overs: int = 0
    reread: int = 0
    cached: int = 0
    discarded: int = 0
    busy: dict[str, float] = field(default_factory=lambda: {"speculative": 0.0, "target": 0.0})
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Side:
    """One way of answering, `concurrency` questions at a time, `share` of a round's questions."""

    name: str
    concurrency: int
    share: int
    answer: Callable[[str, Count], Awaitable[None]]
    count: Count = field(default_factory=Count)

    async def round(self, texts: Sequence[str]) -> None:
        waiting = list(texts[: self.share])
        clock = asyncio.get_running_loop().time

        async def work() -> None:
            while waiting:
                text = waiting.pop()
                asked = clock()
                await self.answer(text, self.count)
                self.count.seconds.append(clock() - asked)
                self.count.replies += 1

        began = clock()
        await asyncio.gather(*(work() for _ in range(self.concurrency)))
        self.count.rates.append(len(texts[: self.share]) / (clock() - began))


def main() -> None:
    options = parser().parse_args()
    found = uvloop.run(measure(options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--config", type=Path, default=CONFIG)
    top.add_argument("--small", type=Path, default=ROOT / "demo/small")
    top.add_argument("--target", type=Path, default=ROOT / "demo/target")
    top.add_argument("--route", default="speculative")
    top.add_argument("--target-route", default="target")
    top.add_argument("--concurrency", type=int, default=16)
    top.add_argument("--questions", type=int, default=64, help="of a round, for the sides with many at once")
    top.add_argument("--alone", type=int, default=8, help="of a round, for the sides with one at a time")
    top.add_argument("--drafts", action="store_true", help="a side more: the target with drafts")
    top.add_argument("--scripted", type=float, nargs=2, metavar=("MS", "MS"), help="scripts: small, target, a token")
    top.add_argument("--rounds", type=int, default=6)
    top.add_argument("--difficulties", type=int, nargs="*", default=(1, 2))
    top.add_argument("--max-tokens", type=int, default=900)
    top.add_argument("--fixed", action="store_true", help="every reply has max-tokens, whatever the models want")
    top.add_argument("--out", type=Path, default=ROOT / "runs/bench-speculative.json")
    return top


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    config = configured(options.small, options.target, options.config, options.drafts)
    async with AsyncExitStack() as stack:
        engines = scripted(*options.scripted) if options.scripted else await start_engines(config, stack)
        sides = sides_of(assemble(config, engines, 0).routes, options)
        drawn = questions(options.questions, tuple(options.difficulties), "test", 3)
        texts = [question.text for question in drawn]
        for side in sides:
            await side.round(texts[:16])  # kernels compile, caches fill
            side.count.__init__()  # type: ignore[misc]
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                await side.round(texts)
            print(
                f"round {number + 1} of {options.rounds}",
                [round(side.count.rates[-1], 2) for side in sides],
                flush=True,
            )
    return report(sides)


def sides_of(routes: Mapping[str, Route], options: argparse.Namespace) -> list[Side]:
    both = routes[options.route]
    sampling = Sampling(temperature=0.6, max_tokens=options.max_tokens, ignore_eos=options.fixed)

    async def by(route: Route, text: str, count: Count) -> None:
        request = Conversation([{"role": "user", "content": text}])
        async for event in route.controller(route, request, THINK, sampling):
            if isinstance(event, Finished):
                add(count, event)

    async def looped(text: str, count: Count) -> None:
        assert both.target is not None
        lengths = both.target.settings.lengths
        loop = Loop(
            both.engine,
            both.target.route.engine,
            sampling,
            lengths.takeover_tokens,
            lengths.verification_tokens,
            lengths.excess_tokens,
            lengths.excess_after,
            both.target.settings.excess_prompt,
        )
        tokenizer = both.engine.tokenizer
        prompt = tokenizer.render([{"role": "user", "content": text}]) + list(both.prefixes["think"])
        count.tokens += len(await loop.write(prompt, options.max_tokens))
        count.target_tokens += loop.target_tokens
        count.requests += loop.requests

    many, one = options.concurrency, options.alone
    sides = [
        Side(f"served, {many} at once", many, options.questions, partial(by, both)),
        Side("served, one at a time", 1, one, partial(by, both)),
        Side(f"target alone, {many} at once", many, options.questions, partial(by, routes[options.target_route])),
    ]
    if options.drafts:
        drafted = partial(by, routes["drafted"])
        sides.append(Side(f"target with drafts, {many} at once", many, options.questions, drafted))
    same = both.target is not None and both.engine.tokenizer.vocabulary == both.target.route.engine.tokenizer.vocabulary
    return [*sides, Side("the authors' loop", 1, one, looped)] if same else sides


def add(count: Count, end: Finished) -> None:
    count.tokens += end.completion_tokens
    count.requests += end.segments
    count.discarded += end.discarded_tokens
    if end.target is not None:
        count.target_tokens += end.target.target_tokens
        count.hand_overs += end.target.hand_overs
        count.reread += end.target.reread_tokens
        count.cached += end.target.cached_tokens
        for model, seconds in end.target.seconds.items():
            count.busy[model] += seconds


def report(sides: Sequence[Side]) -> dict[str, Any]:
    first, *others = sides
    ratios: dict[str, Interval] = {}
    for side in sides:
        count = side.count
        each = f"{count.tokens / count.replies:.0f} tokens, {count.requests / count.replies:.1f} requests a reply"
        share = f"{100 * count.target_tokens / count.tokens:.1f} % from the target"
        print(f"{side.name:32} {fmean(count.rates):8.2f} replies/s  {median(count.seconds):.2f} s  {each}  {share}")
    for side in others:
        pairs = zip(first.count.rates, side.count.rates, strict=True)
        ratio = mean_ratio([a / b for a, b in pairs])
        ratios[side.name] = ratio
        print(f"{first.name} over {side.name}: {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
    count = first.count
    wall = sum(first.share / rate for rate in count.rates)
    print("at once with", ", ".join(f"the {model} model {seconds / wall:.1f}" for model, seconds in count.busy.items()))
    if count.hand_overs:
        reread, cached = count.reread / count.hand_overs, count.cached / count.hand_overs
        print(
            f"of a hand-over's {reread:.0f} prompt tokens {cached:.0f} are cached; "
            f"{count.hand_overs / count.replies:.1f} hand-overs and {count.discarded / count.replies:.1f} "
            "discarded tokens a reply"
        )
    return {
        "sides": {side.name: asdict(side.count) for side in sides},
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
    }


if __name__ == "__main__":
    main()
