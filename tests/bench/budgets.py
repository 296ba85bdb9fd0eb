"""What budgets cost and what they buy. `python -m tests.bench.budgets cost | sweep`.

`cost`: throughput, and processor time a token, with a budget over those without, at one server, in alternating rounds;
the budget is larger than any thought, so that both sides do the same work. It is measured on a route of its own,
without any budgets.

`sweep`: tokens used and accuracy over budgets, as JSON: hard cuts and graceful ones, and with `--prefill`
budgets written into the model's own field as well. There, hard and graceful cuts leave the field to the model, so that
the three ways differ in nothing else:

    python -m tests.bench.budgets sweep --config configs/budget.toml --route budget --hard-route budget-hard \\
        --prefill --depths 3 4 5 6 7 8 --budgets 16 24 32 48 64 96 128 192 288 --requests 120 \\
        --out docs/results/budget-sweep.json
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import orjson
import uvloop

from loadtest.analysis.comparison import compared
from loadtest.analysis.distribution import mean_ratio
from loadtest.load.arrivals import Concurrent
from loadtest.load.run import run
from loadtest.load.workload import last_digit
from loadtest.records import LoadRequest, LoadTarget, RequestRecord, RunResult
from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat
from server.config.load import load_config
from tests.processes import ROOT, reasond, session_seconds

NEVER_BINDS = 1000  # tokens; the model thinks at most about 50
WAYS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "without": {"reasond": {"mode": "think"}},
        "native": {"reasond": {"mode": "think", "budget": NEVER_BINDS, "cut": "hard"}},
        "graceful": {"reasond": {"mode": "think", "budget": NEVER_BINDS, "cut": "graceful"}},
    }
)
BARE = """
[routes.bare]
engine = "demo"
family = "lhrm"
mode = "think"
"""


def main() -> None:
    options = parser().parse_args()
    log, config = ROOT / "runs/bench-budgets.log", ROOT / "runs/bench-budgets.toml"
    log.parent.mkdir(exist_ok=True)
    config.write_text(options.config.read_text() + (BARE if options.what == "cost" else ""))
    with reasond(config, log=log) as (url, process):
        figures = uvloop.run(cost(url, process.pid, options) if options.what == "cost" else sweep(url, options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("what", choices=("cost", "sweep"))
    top.add_argument("--config", type=Path, default=ROOT / "configs/demo.toml")
    top.add_argument("--route", default="demo-think", help="of the sweep")
    top.add_argument("--hard-route", help="for hard cuts, where the route refuses them; left out: the route")
    top.add_argument("--prefill", action="store_true", help="the model has a budget field: fill it, as a third way")
    top.add_argument("--depths", type=int, nargs="*", default=tuple(range(1, 9)))
    top.add_argument("--concurrency", type=int, default=32)
    top.add_argument("--rounds", type=int, default=6)
    top.add_argument("--tokens", type=int, help="of every reply of `cost`, whatever the model: it may know no end")
    top.add_argument("--requests", type=int, default=256, help="of a round, or of one budget")
    top.add_argument("--budgets", type=int, nargs="*", default=(2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128))
    top.add_argument("--out", type=Path, default=ROOT / "runs/budgets.json")
    return top


async def cost(url: str, server: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    length = {"ignore_eos": True, "max_tokens": options.tokens} if options.tokens else {}
    sides = {name: asking(options.requests, (8,), {**body, **length}) for name, body in WAYS.items()}
    rounds: dict[str, list[RunResult]] = {name: [] for name in sides}
    work: dict[str, list[float]] = {name: [] for name in sides}
    target, arrivals = LoadTarget(url, "bare"), Concurrent(options.concurrency)
    for requests in sides.values():
        await run(target, requests[: 2 * options.concurrency], arrivals)
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            before = session_seconds(server)
            result = await run(target, sides[name], arrivals)
            good(result.records)
            tokens = sum(record.completion_tokens or 0 for record in result.records)
            work[name].append((session_seconds(server) - before) / tokens)
            rounds[name].append(result)
    rows = []
    for name in ("native", "graceful"):
        found = compared((name, rounds[name]), ("without", rounds["without"])).ratios[0]["output_tokens_per_second"]
        interval = found.ratio
        print(f"{name} over without: {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}], {found.rounds}")
        spent = mean_ratio([one / other for one, other in zip(work[name], work["without"], strict=True)])
        print(f"  processor time a token: {spent.value:.4f} [{spent.low:.4f}, {spent.high:.4f}]")
        figures = {"ratio": interval.value, "low": interval.low, "high": interval.high}
        rows.append({"way": name, **figures, "work": spent.value, "work_low": spent.low, "work_high": spent.high})
    return rows


async def sweep(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    family = FAMILIES[load_config(options.config).routes[options.route].family]
    free = {"prefill": False} if options.prefill else {}
    ways = {
        "hard": (options.hard_route or options.route, {"cut": "hard", **free}),
        "graceful": (options.route, {"cut": "graceful", **free}),
    }
    if options.prefill:
        ways["pre-filled"] = (options.route, {"cut": "graceful"})
    rows = []
    print(f"{'way':12} {'budget':>6} {'used':>7} {'right':>6}")
    for way, (route, control) in ways.items():
        for budget in options.budgets:
            requests = asking(options.requests, options.depths, {"reasond": {"budget": budget, **control}})
            records = (await run(LoadTarget(url, route), requests, Concurrent(options.concurrency))).records
            good(records)
            used = fmean((record.decision or {})["budget"]["used"] for record in records)
            correct = fmean(right(record, family) for record in records)
            print(f"{way:12} {budget:6} {used:7.1f} {correct:6.3f}", flush=True)
            rows.append({"way": way, "budget": budget, "used": used, "right": correct, "requests": len(records)})
    return rows


def right(record: RequestRecord, family: ReasoningFormat) -> bool:
    """Where thinking and answer stand together, the answer is what follows the family's last phrase."""
    text = record.answer
    if family.scope == "reply":
        _, phrase, text = text.rpartition(family.wrap_up)
        if not phrase:
            return False
    return text.strip() == record.request.answer


def asking(count: int, depths: Sequence[int], body: Mapping[str, Any]) -> list[LoadRequest]:
    drawn = last_digit(count, seed=11, depths=tuple(depths), body={"temperature": 0, "max_tokens": 400, **body})
    return [replace(request, stream=False) for request in drawn]


def good(records: Sequence[RequestRecord]) -> None:
    """No figure stands on failures."""
    if failed := [record for record in records if record.error]:
        raise SystemExit(f"{len(failed)} requests went wrong; the first: {failed[0]}")


if __name__ == "__main__":
    main()
