"""Early exits on the demo tasks with long thoughts: `python -m tests.accept.exits SETTINGS.toml`.

Each table of the settings names a model, its task and an exit. The same test questions are asked on four routes over
one engine: without an exit, with it, and with its looks but thresholds that nothing reaches, greedily; then without and
with it at temperature `--heat`. Rounds alternate. Prints, and writes as JSON: thinking tokens saved, right answers lost
and won, tokens of trials, the share of their prompts that was cached, and seconds over seconds of the rounds.
"""

import argparse
import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson
import uvloop

from controllers.generation.events import Conversation, Finished
from controllers.generation.route import Route
from controllers.policy.fold import Policy
from demo.tasks import TASKS
from loadtest.analysis.distribution import mean_ratio, wilson
from models.engines.base import Sampling
from models.formats.chunks import Chunk
from server.assemble import assemble
from server.config.load import parse_config
from server.engines import start_engines
from tests.processes import ROOT
from training.data.questions import TrainingQuestion, draw

CONFIG = """
[engines.demo]
kind = "vllm"
model = "{model}"
env = {{ VLLM_CPU_OMP_THREADS_BIND = "nobind", OMP_NUM_THREADS = "1" }}
[engines.demo.args]
max_model_len = 2048
block_size = 32
max_num_seqs = 128
kv_cache_memory_bytes = 536870912
enforce_eager = true
"""
ROUTE = '\n[routes.{name}]\nengine = "demo"\nfamily = "{family}"\nmode = "think"\n'
UNREACHED = {"margin": {"tau": 0.0}, "trial": {"confidence": 1 - 1e-12}}
SIDES = ("plain", "exit", "watched")


@dataclass(frozen=True, slots=True)
class Reply:
    right: bool
    text: str
    end: Finished


def main() -> None:
    options = parser().parse_args()
    tables = tomllib.loads(options.settings.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for name, table in tables.items():
        if options.only in ("", name):
            found[name] = uvloop.run(measure(name, table, options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("settings", type=Path)
    top.add_argument("--only", default="", help="one table of the settings")
    top.add_argument("--questions", type=int, default=64, help="of a round")
    top.add_argument("--rounds", type=int, default=6)
    top.add_argument("--concurrency", type=int, default=16)
    top.add_argument("--heat", type=float, default=0.6)
    top.add_argument("--seed", type=int, default=5, help="of the questions")
    top.add_argument("--out", type=Path, default=ROOT / "runs/exits.json")
    return top


async def measure(name: str, table: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    exits = table["exit"]
    settings = {"plain": None, "exit": exits, "watched": {**exits, **UNREACHED[exits["rule"]]}}
    text = CONFIG.format(model=table["model"])
    for side, each in settings.items():
        text += ROUTE.format(name=side, family=table["family"])
        text += f"[routes.{side}.exit]\n{toml(each)}" if each else ""
    config = parse_config(text, ROOT)
    asked = questions(table, options.questions * options.rounds, options.seed)
    replies: dict[tuple[str, float], list[Reply]] = {}
    seconds: dict[tuple[str, float], list[float]] = {}
    async with AsyncExitStack() as stack:
        routes = assemble(config, await start_engines(config, stack), 0).routes
        await ask(routes["plain"], table["task"], asked[:16], 0.0, options.concurrency)  # kernels compile
        sides = [(side, 0.0) for side in SIDES] + [(side, options.heat) for side in SIDES[:2]]
        for number in range(options.rounds):
            share = asked[number :: options.rounds]
            for side, heat in sides if number % 2 == 0 else reversed(sides):
                began = asyncio.get_running_loop().time()
                came = await ask(routes[side], table["task"], share, heat, options.concurrency)
                seconds.setdefault((side, heat), []).append(asyncio.get_running_loop().time() - began)
                replies.setdefault((side, heat), []).extend(came)
    row: dict[str, Any] = {**table, "questions": len(asked)}
    for heat in (0.0, options.heat):
        row[f"temperature {heat}"] = compared(replies["plain", heat], replies["exit", heat])
        ratio = mean_ratio([a / b for a, b in zip(seconds["exit", heat], seconds["plain", heat], strict=True)])
        row[f"temperature {heat}"]["seconds"] = [ratio.value, ratio.low, ratio.high]
    same = [a.text == b.text for a, b in zip(replies["plain", 0.0], replies["watched", 0.0], strict=True)]
    watched = compared(replies["plain", 0.0], replies["watched", 0.0])
    row["looking alone"] = {"identical": sum(same), "looks": watched["looks"], "cached": watched["cached"]}
    print(name, orjson.dumps(row, option=orjson.OPT_INDENT_2).decode(), flush=True)
    return row


def toml(settings: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in settings.items())


def questions(table: Mapping[str, Any], count: int, seed: int) -> Sequence[TrainingQuestion]:
    """Different ones, of the test side of the split, as many of each difficulty as of the next."""
    rng, found, levels = Random(seed), dict[str, TrainingQuestion](), table["difficulties"]
    while len(found) < count:
        question = draw(TASKS[table["task"]], levels[len(found) % len(levels)], "test", rng)
        found.setdefault(question.text, question)
    return list(found.values())


async def ask(route: Route, task: str, asked: Sequence[TrainingQuestion], heat: float, at_once: int) -> list[Reply]:
    waiting, replies = list(enumerate(asked)), dict[int, Reply]()

    async def work() -> None:
        while waiting:
            number, question = waiting.pop()
            replies[number] = await reply(route, task, question, Sampling(max_tokens=1000, temperature=heat, seed=1))

    await asyncio.gather(*(work() for _ in range(at_once)))
    return [replies[number] for number in range(len(asked))]


async def reply(route: Route, task: str, question: TrainingQuestion, sampling: Sampling) -> Reply:
    request, policy = Conversation([{"role": "user", "content": question.text}]), Policy("think", "client")
    texts, answer = [], ""
    async for event in route.controller(route, request, policy, sampling):
        if isinstance(event, Chunk):
            texts.append(event.text)
            answer += event.text if event.kind == "answer" else ""
        elif isinstance(event, Finished):
            return Reply(TASKS[task].is_correct(question.text, answer), "".join(texts), event)
    raise RuntimeError("the reply has no end")


def compared(full: Sequence[Reply], cut: Sequence[Reply]) -> dict[str, Any]:
    """What the exit changed, question by question."""
    thought, left = (sum(each.end.reasoning_tokens for each in side) for side in (full, cut))
    right = sum(each.right for each in full)
    lost = sum(a.right and not b.right for a, b in zip(full, cut, strict=True))
    uses = [each.end.early_exit for each in cut if each.end.early_exit is not None]
    read, probes = sum(use.prompt_tokens for use in uses), sum(use.probe_tokens for use in uses)
    bound = wilson(lost, right)
    return {
        "accuracy": [right / len(full), sum(each.right for each in cut) / len(cut)],
        "thinking": [thought / len(full), left / len(cut)],
        "saved": 1 - left / thought,
        "saved_with_probes": 1 - (left + probes) / thought,
        "settled": sum(each.end.cut_by == "settled" for each in cut) / len(cut),
        "lost": bound and [bound.value, bound.low, bound.high],
        "won": sum(b.right and not a.right for a, b in zip(full, cut, strict=True)),
        "looks": sum(use.looks for use in uses) / len(cut),
        "failed": sum(use.failed for use in uses),
        "cached": sum(use.cached_tokens for use in uses) / read if read else None,
    }


if __name__ == "__main__":
    main()
