"""Serving overhead: reasond's chat route against vLLM's own OpenAI server. `make bench`.

Both run the same model on the same machine, both parse reasoning, both get the same prompts and write the same replies
(temperature 0); rounds alternate between them in one run. Prints ratios with 95 % intervals, and writes everything to
JSON. Beside the ratios stands the processor time of each front end for a token, which a busy machine disturbs less.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
import uvloop

from loadtest.analysis.comparison import compared
from loadtest.load.arrivals import Concurrent
from loadtest.load.run import run
from loadtest.load.workload import last_digit
from loadtest.records import LoadRequest, LoadTarget, RequestRecord, RunResult
from models.engines import VllmEngineConfig
from server.config.load import load_config
from tests.processes import ROOT, reasond, vllm

DEPTH = 8  # of the questions: a reply that thinks has about 46 tokens, one that does not has 3

TEMPLATE_SUFFIX = "{% if mode is defined %}{{ mode }}{% endif %}"
"""vLLM's server forces a mode as its users do: through the chat template's arguments."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: what each side is asked."""

    mode: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    route: str = "demo"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its URL, and the process that answers HTTP."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time of that one process, its engine's own not counted."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Side:
    """One of the two servers in one row, and what came of its rounds."""

    served: Served
    target: LoadTarget
    requests: Sequence[LoadRequest]
    results: list[RunResult] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def records(self) -> list[RequestRecord]:
        return [record for result in self.results for record in result.records]

    @property
    def tokens(self) -> int:
        return sum(record.completion_tokens or 0 for record in self.records)


CASES = (
    Case("think", {"enable_thinking": True}, {"chat_template_kwargs": {"mode": "<think>"}}),
    Case("no_think", {"enable_thinking": False}, {"chat_template_kwargs": {"mode": "<no_think>"}}),
    Case("auto", {}, {}),
    Case("auto, threshold", {}, {}, "demo-threshold"),
)


def main() -> None:
    options = parser().parse_args()
    with servers(options.config, options.model, options.ports) as (ours, theirs):
        rows = uvloop.run(measure(ours, theirs, options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--config", type=Path, default=ROOT / "configs/demo.toml")
    top.add_argument("--model", type=Path, default=ROOT / "demo/hybrid")
    top.add_argument("--ports", type=int, nargs=2, default=(8101, 8102))
    top.add_argument("--concurrency", type=int, nargs="*", default=(1, 8, 32, 64))
    top.add_argument("--modes", nargs="*", default=[case.mode for case in CASES])
    top.add_argument("--rounds", type=int, default=6)
    top.add_argument("--seconds", type=float, default=4.0, help="about how long each side's round takes")
    top.add_argument("--streaming", choices=("yes", "no", "both"), default="both")
    top.add_argument("--out", type=Path, default=ROOT / "runs/bench.json")
    return top


async def measure(ours: Served, theirs: Served, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(HEADING)
    for stream in {"yes": (True,), "no": (False,), "both": (True, False)}[options.streaming]:
        for case in (case for case in CASES if case.mode in options.modes):
            for concurrency in options.concurrency:
                row = await one(ours, theirs, case, stream, concurrency, options)
                print(line(row), flush=True)
                rows.append(row)
    return rows


async def one(
    ours: Served, theirs: Served, case: Case, stream: bool, concurrency: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: as many requests a round as a rough guess of the speed makes last for `seconds`."""
    guess = 8 if concurrency == 1 else 60  # replies a second; only the length of the run hangs on it
    per_round = max(2 * concurrency, round(options.seconds * guess / concurrency) * concurrency)
    sides = (
        Side(ours, LoadTarget(ours.url, case.route), requests(per_round * options.rounds, stream, case.ours)),
        Side(theirs, LoadTarget(theirs.url, "demo"), requests(per_round * options.rounds, stream, case.theirs)),
    )
    for side in sides:
        await run(side.target, side.requests[: 2 * concurrency], Concurrent(concurrency))
    for number in range(options.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            before = side.served.cpu_seconds()
            share = side.requests[number :: options.rounds]
            side.results.append(await run(side.target, share, Concurrent(concurrency)))
            side.cpu_seconds += side.served.cpu_seconds() - before
    check(sides)
    return {"mode": case.mode, "stream": stream, "concurrency": concurrency, **figures(*sides)}


def requests(count: int, stream: bool, body: dict[str, Any]) -> Sequence[LoadRequest]:
    drawn = last_digit(count, seed=7, depths=(DEPTH,), body={"temperature": 0, **body})
    return [replace(request, stream=stream) for request in drawn]


def check(sides: Sequence[Side]) -> None:
    """No row stands on failures, or on replies of different lengths."""
    for side in sides:
        if failed := [record for record in side.records if record.error]:
            raise SystemExit(f"{len(failed)} requests went wrong at {side.target.url}; the first: {failed[0]}")
    a, b = (side.tokens for side in sides)
    if abs(a - b) > 0.03 * b:  # a probed mode token counts as prompt, a sampled one as completion
        raise SystemExit(f"the two sides wrote {a} and {b} tokens: not the same work")


def figures(ours: Side, theirs: Side) -> dict[str, Any]:
    (found,) = compared(("reasond", ours.results), ("vllm", theirs.results)).ratios
    names = {"throughput": "output_tokens_per_second", "ttft": "time_to_first_token_ms p50"}
    names |= {"latency": "request_latency_ms p50"}
    row: dict[str, Any] = {}
    for short, name in names.items():
        if (ratio := found.get(name)) is not None:
            interval = {"value": ratio.ratio.value, "low": ratio.ratio.low, "high": ratio.ratio.high}
            row[short] = {"ratio": interval, "reasond": ratio.a, "vllm": ratio.b, "rounds": ratio.rounds}
    for name, side in (("reasond", ours), ("vllm", theirs)):
        row[f"events_{name}"] = sum(len(record.events) for record in side.records) / len(side.records)
        row[f"client_cpu_{name}"] = fmean(result.cpu_share for result in side.results)
        row[f"front_end_us_{name}"] = side.cpu_seconds / side.tokens * 1e6
    return row


HEADING = (
    "ratios are reasond over vLLM [95 % interval]; throughput in tokens a second, times in ms (median); "
    "front end: processor time of the HTTP process, microseconds a token; events: streamed chunks a reply; "
    "client: its share of one core\n"
    f"{'stream':6} {'mode':16} {'conc.':>5}  {'throughput':27} {'ours':>7} {'vLLM':>7}  "
    f"{'TTFT':24} {'ours':>6} {'vLLM':>6}  {'front end':>11} {'events':>11} {'client':>11}"
)


def line(row: dict[str, Any]) -> str:
    def ratio(name: str) -> str:
        if name not in row:
            return "-"
        r = row[name]["ratio"]
        return f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"

    first = row.get("ttft", {"reasond": 0.0, "vllm": 0.0})
    return (
        f"{'yes' if row['stream'] else 'no':6} {row['mode']:16} {row['concurrency']:5}  {ratio('throughput'):27} "
        f"{row['throughput']['reasond']:7.0f} {row['throughput']['vllm']:7.0f}  {ratio('ttft'):24} "
        f"{first['reasond']:6.1f} {first['vllm']:6.1f}  "
        f"{row['front_end_us_reasond']:5.0f}/{row['front_end_us_vllm']:5.0f} "
        f"{row['events_reasond']:5.1f}/{row['events_vllm']:5.1f} "
        f"{row['client_cpu_reasond']:5.2f}/{row['client_cpu_vllm']:5.2f}"
    )


@contextmanager
def servers(config: Path, model: Path, ports: Sequence[int]) -> Iterator[tuple[Served, Served]]:
    """Both servers, one started after the other, each with the engine arguments of the configuration."""
    template = ROOT / "runs/bench-template.jinja"
    template.parent.mkdir(exist_ok=True)
    template.write_text((model / "chat_template.jinja").read_text().rstrip("\n") + TEMPLATE_SUFFIX)
    engine = load_config(config).engines["demo"]
    assert isinstance(engine, VllmEngineConfig)
    arguments = {"reasoning_parser": "qwen3", "chat_template": template, "disable_log_stats": True, **engine.args}
    os.environ.update(engine.env)
    logs = [ROOT / f"runs/bench-{name}.log" for name in ("reasond", "vllm")]
    with reasond(config, ports[0], logs[0]) as (ours, us), vllm(model, arguments, ports[1], logs[1]) as (theirs, them):
        yield Served(ours, us.pid), Served(theirs, them.pid)


if __name__ == "__main__":
    main()
