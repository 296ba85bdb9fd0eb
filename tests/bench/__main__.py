"""Serving overhead: reasond's chat route against vLLM's own OpenAI server. `make bench`.

Both run the same model on the same machine, both parse reasoning, both get the same prompts and write the same replies
(temperature 0); rounds alternate between them in one run. Prints ratios with 95 % intervals, and writes everything to
JSON. Beside the ratios stands the processor time of each front end for a token, which a busy machine disturbs less.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

from loadtest.arrivals import Concurrent
from loadtest.compare import Comparison, Side, compare
from loadtest.records import Request, Target
from loadtest.workload import last_digit

ROOT = Path(__file__).parents[2]
DEPTH = 8  # of the questions: a reply that thinks has about 46 tokens, one that does not has 3
READY_SECONDS = 240

TEMPLATE_SUFFIX = "{% if mode is defined %}{{ mode }}{% endif %}"
"""vLLM's server forces a mode as its users do: through the chat template's arguments."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: what each side is asked."""

    mode: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    route: str = "demo"


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


async def measure(ours: str, theirs: str, options: argparse.Namespace) -> list[dict[str, Any]]:
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
    ours: str, theirs: str, case: Case, stream: bool, concurrency: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: as many requests a round as a rough guess of the speed makes last for `seconds`."""
    guess = 8 if concurrency == 1 else 60  # replies a second; only the length of the run hangs on it
    per_round = max(2 * concurrency, round(options.seconds * guess / concurrency) * concurrency)
    count = per_round * options.rounds
    a = Side(Target(ours, case.route, name="reasond"), requests(count, stream, case.ours))
    b = Side(Target(theirs, "demo", name="vllm"), requests(count, stream, case.theirs))
    found = await compare(a, b, Concurrent(concurrency), rounds=options.rounds, warmup=2 * concurrency, keep_text=False)
    check(found, count)
    return {"mode": case.mode, "stream": stream, "concurrency": concurrency, **figures(found)}


def requests(count: int, stream: bool, body: dict[str, Any]) -> Sequence[Request]:
    drawn = last_digit(count, seed=7, depths=(DEPTH,), temperature=0, **body)
    return [Request(id=r.id, messages=r.messages, body=r.body, stream=stream) for r in drawn]


def check(found: Comparison, count: int) -> None:
    """No row stands on failures, or on replies of different lengths."""
    tokens: list[int] = []
    for results in (found.results_a, found.results_b):
        records = [record for result in results for record in result.records]
        if failed := [record for record in records if record.error]:
            raise SystemExit(f"{len(failed)} of {count} requests went wrong; the first: {failed[0]}")
        tokens.append(sum(record.completion_tokens or 0 for record in records))
    if abs(tokens[0] - tokens[1]) > 0.02 * tokens[1]:
        raise SystemExit(f"the two sides wrote {tokens[0]} and {tokens[1]} tokens: not the same work")


def figures(found: Comparison) -> dict[str, Any]:
    names = {"throughput": "output_tokens_per_second", "ttft": "time_to_first_token_ms p50"}
    names |= {"latency": "request_latency_ms p50"}
    row: dict[str, Any] = {}
    for short, name in names.items():
        if (ratio := found.ratios.get(name)) is not None:
            interval = {"value": ratio.ratio.value, "low": ratio.ratio.low, "high": ratio.ratio.high}
            row[short] = {"ratio": interval, "reasond": ratio.a, "vllm": ratio.b, "rounds": ratio.rounds}
    for side, results in (("reasond", found.results_a), ("vllm", found.results_b)):
        records = [record for result in results for record in result.records]
        row[f"events_{side}"] = sum(len(record.events) for record in records) / len(records)
        row[f"client_cpu_{side}"] = sum(result.cpu_share for result in results) / len(results)
    return row


HEADING = (
    "ratios are reasond over vLLM [95 % interval]; throughput in tokens a second, times in ms (median); "
    "events: streamed chunks a reply; client: its share of one core\n"
    f"{'stream':6} {'mode':16} {'conc.':>5}  {'throughput':27} {'ours':>7} {'vLLM':>7}  "
    f"{'TTFT':24} {'ours':>6} {'vLLM':>6}  {'events':>11} {'client':>11}"
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
        f"{row['events_reasond']:5.1f}/{row['events_vllm']:5.1f} "
        f"{row['client_cpu_reasond']:5.2f}/{row['client_cpu_vllm']:5.2f}"
    )


@contextmanager
def servers(config: Path, model: Path, ports: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Both servers, one started after the other, each with the engine arguments of the configuration."""
    with (
        running(
            [sys.executable, "-m", "server.cli", "serve", str(config), "--port", str(ports[0])], ports[0], "/ready"
        ),
        running(vllm_command(config, model, ports[1]), ports[1], "/health"),
    ):
        yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"


def vllm_command(config: Path, model: Path, port: int) -> list[str]:
    from server.config import load_config

    template = ROOT / "runs/bench-template.jinja"
    template.parent.mkdir(exist_ok=True)
    template.write_text((model / "chat_template.jinja").read_text().rstrip("\n") + TEMPLATE_SUFFIX)
    args: dict[str, Any] = dict(load_config(config).engines["demo"].args)  # type: ignore[union-attr]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in args.items()]
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1", f"--port={port}"),
        *(f"--model={model}", "--served-model-name=demo", "--reasoning-parser=qwen3", f"--chat-template={template}"),
        *("--disable-log-stats", "--disable-uvicorn-access-log", *flags),
    ]


@contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[None]:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}{path}")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(process.args[:4])} … ended with {process.returncode}")  # type: ignore[index]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"{url} did not answer within {READY_SECONDS} s")


if __name__ == "__main__":
    main()
