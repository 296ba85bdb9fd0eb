"""Two source trees of this server in turn, in one run: `python -m tests.bench.trees OLD NEW --rounds 8`.

Each tree's server runs in a process of its own over a scripted engine. All that the process does is counted, the
engine's part too, so a ratio is of whole servers. Rounds alternate, and both sides must write the same tokens.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import uvloop

from loadtest.analysis.comparison import compared
from loadtest.analysis.distribution import Interval, mean_ratio
from loadtest.load.arrivals import Concurrent
from loadtest.load.run import run
from loadtest.load.workload import last_digit
from loadtest.records import LoadTarget, RunResult
from tests.processes import reasond

CONFIG = """
[engines.demo]
kind = "scripted"
model = "{model}"
replies = ["<think>{thought}</think>6"]

[routes.plain]
engine = "demo"
family = "lhrm"

[routes.reserve]
engine = "demo"
family = "lhrm"
budgets = {{ reserve = 8, default = 1000 }}
"""
THOUGHT = "a*3=6 b-2=4 c+8=2 d-7=5 "
HEADING = (
    "ratios are new over old, geometric mean of the rounds [95 % interval] (least - greatest round); "
    "CPU: processor time of the server's process\n"
    f"{'route':8} {'stream':6} {'figure':24} {'old':>9} {'new':>9}  ratio"
)


@dataclass(slots=True)
class Tree:
    """One server, and what came of its rounds of one row."""

    url: str
    pid: int
    results: list[RunResult] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Of all the process's threads, to the nanosecond: a round takes few of the clock ticks of /proc/PID/stat."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def tokens(self, number: int) -> int:
        return sum(record.completion_tokens or 0 for record in self.results[number].records)


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        trees = []
        for name in ("old", "new"):
            tree = getattr(options, name).resolve()
            config = Path(folder) / f"{name}.toml"
            text = CONFIG.format(model=tree / "demo/tokenizer", thought=THOUGHT * options.length)
            config.write_text(options.config.read_text("utf-8") if options.config else text, encoding="utf-8")
            url, process = servers.enter_context(reasond(config, log=Path(folder) / f"{name}.log", tree=tree))
            trees.append(Tree(url, process.pid))
        rows = list(uvloop.run(measure(*trees, options)))
    if options.out:
        options.out.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.bench.trees", description=__doc__)
    top.add_argument("old", type=Path, help="a source tree: the folder that holds server/")
    top.add_argument("new", type=Path)
    top.add_argument("--rounds", type=int, default=8)
    top.add_argument("--requests", type=int, default=200, help="of each side in each round")
    top.add_argument("--concurrency", type=int, default=16)
    top.add_argument("--length", type=int, default=4, help="of the thought, in lines of some 20 tokens")
    top.add_argument("--routes", nargs="*", default=("plain", "reserve"))
    top.add_argument("--streaming", choices=("yes", "no", "both"), default="both")
    top.add_argument("--config", type=Path, help="for both servers, in place of the one over a scripted engine")
    top.add_argument("--out", type=Path, help="write the rows here, as JSON")
    return top


async def measure(old: Tree, new: Tree, options: argparse.Namespace) -> Sequence[dict[str, Any]]:
    rows = []
    print(HEADING)
    for stream in {"yes": (True,), "no": (False,), "both": (True, False)}[options.streaming]:
        for route in options.routes:
            trees = replace(old, results=[], cpu=[]), replace(new, results=[], cpu=[])
            for number in range(-1, options.rounds):  # the first warms up
                for tree in trees if number % 2 == 0 else reversed(trees):
                    await one_round(tree, route, stream, number, options)
            for name, (figures, ratio) in compare(*trees).items():
                print(line(route, stream, name, figures, ratio), flush=True)
                rows.append({"route": route, "stream": stream, "figure": name, **figures, "ratio": ratio})
    return rows


async def one_round(tree: Tree, route: str, stream: bool, number: int, options: argparse.Namespace) -> None:
    asked = last_digit(options.requests, seed=number, body={"max_tokens": 2000})
    requests = [replace(request, stream=stream) for request in asked]
    before = tree.cpu_seconds()
    result = await run(LoadTarget(tree.url, route), requests, Concurrent(options.concurrency))
    if failed := [record for record in result.records if record.error]:
        raise SystemExit(f"{len(failed)} requests went wrong at {tree.url}; the first: {failed[0]}")
    if number >= 0:
        tree.results.append(result)
        tree.cpu.append(tree.cpu_seconds() - before)


def compare(old: Tree, new: Tree) -> dict[str, tuple[dict[str, Any], Interval]]:
    """By figure: both sides' values with the rounds' ratios, and the ratio."""
    if (a := old.tokens(0)) != (b := new.tokens(0)):
        raise SystemExit(f"the trees wrote {a} and {b} tokens: not the same work")
    (found,) = compared(("new", new.results), ("old", old.results)).ratios
    names = {"tokens a second": "output_tokens_per_second", "replies a second": "requests_per_second"}
    names |= {"first token, ms (median)": "time_to_first_token_ms p50", "reply, ms (median)": "request_latency_ms p50"}
    figures = {
        words: ({"old": found[name].b, "new": found[name].a, "rounds": found[name].rounds}, found[name].ratio)
        for words, name in names.items()
        if name in found
    }
    per_token = [[cpu / tree.tokens(i) * 1e6 for i, cpu in enumerate(tree.cpu)] for tree in (old, new)]
    per_reply = [[cpu / len(tree.results[i].records) * 1e3 for i, cpu in enumerate(tree.cpu)] for tree in (old, new)]
    return figures | {"CPU of a token, us": spread(*per_token), "CPU of a reply, ms": spread(*per_reply)}


def spread(old: Sequence[float], new: Sequence[float]) -> tuple[dict[str, Any], Interval]:
    rounds = [b / a for a, b in zip(old, new, strict=True)]
    return {"old": sum(old) / len(old), "new": sum(new) / len(new), "rounds": rounds}, mean_ratio(rounds)


def line(route: str, stream: bool, name: str, figures: dict[str, Any], ratio: Interval) -> str:
    within = f"[{ratio.low:.3f}, {ratio.high:.3f}] ({min(figures['rounds']):.3f} - {max(figures['rounds']):.3f})"
    values = f"{figures['old']:9.4g} {figures['new']:9.4g}"
    return f"{route:8} {'yes' if stream else 'no':6} {name:24} {values}  {ratio.value:.3f} {within}"


if __name__ == "__main__":
    main()
