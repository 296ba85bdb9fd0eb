"""Answers that begin in time, under load: `python -m tests.accept.deadlines [--seconds S]`.

`demo/plain` searches countdown's answers, which takes it thoughts of some hundred tokens. Closed loops of 1 to 64, then
Poisson arrivals at 1.2 times the rate that the last closed loop came to. Each load comes without a deadline, then with
one: by default 1.5 times the time in which half of the answers begin when one question is asked at a time. Prints the
share of answers that began in time, counted by the client, how many were right, and the thinking tokens.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import uvloop

from loadtest.analysis.distribution import wilson
from loadtest.load.arrivals import ArrivalPlan, Concurrent, poisson
from loadtest.load.run import run
from loadtest.records import LoadRequest, LoadTarget, RequestRecord, RunResult
from tests.bench.pair import questions, right
from tests.processes import ROOT, reasond

CONCURRENCIES = (1, 8, 64)
OVERLOAD = 1.2
LEISURE = 1.5
CONFIG = """
[engines.demo]
kind = "vllm"
model = "{model}"
args = {{ max_model_len = 2048, block_size = 32, max_num_seqs = 64, enforce_eager = true }}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1", VLLM_CPU_OMP_THREADS_BIND = "nobind", OMP_NUM_THREADS = "1" }}

[routes.demo]
engine = "demo"
family = "qwen3"
sampling = {{ temperature = 0.6 }}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, help="the deadline")
    options.add_argument("--requests", type=int, default=200, help="of each load; a quarter of them one at a time")
    options.add_argument("--out", type=Path, default=ROOT / "runs/deadlines.json")
    asked = options.parse_args()
    config = ROOT / "runs/deadlines.toml"
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG.format(model=ROOT / "demo/plain"), encoding="utf-8")
    with reasond(config) as (url, _):
        rows = list(measured(url, asked))
    asked.out.write_text(json.dumps(rows, indent=1) + "\n")


def measured(url: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    seconds, capacity = asked.seconds, 0.0
    ask(url, 64, Concurrent(16), None)  # kernels compile
    for concurrency in CONCURRENCIES:
        count = asked.requests if concurrency > 1 else asked.requests // 4
        free = ask(url, count, Concurrent(concurrency), None)
        seconds = seconds or LEISURE * median(begin(record) for record in free.records)
        capacity = count / free.seconds
        yield from both(f"{concurrency} at once", free, ask(url, count, Concurrent(concurrency), seconds), seconds)
    plan = poisson(OVERLOAD * capacity)
    free, timely = (ask(url, asked.requests, plan, deadline) for deadline in (None, seconds))
    yield from both(f"Poisson, {OVERLOAD * capacity:.1f} a second", free, timely, seconds)


def ask(url: str, count: int, arrivals: ArrivalPlan, seconds: float | None) -> RunResult:
    control = {"mode": "think"} | ({} if seconds is None else {"deadline_seconds": seconds})
    requests = [
        LoadRequest(
            str(number),
            ({"role": "user", "content": question.text},),
            body={"seed": number, "max_tokens": 900, "reasond": control},
        )
        for number, question in enumerate(questions(count, (1, 2), "test", seed=7))
    ]
    result = uvloop.run(run(LoadTarget(url, "demo"), requests, arrivals))
    if failed := [record for record in result.records if record.error]:
        raise SystemExit(f"{len(failed)} requests went wrong; the first: {failed[0]}")
    return result


def begin(record: RequestRecord) -> float:
    """Seconds until the answer begins; until the end of a reply that has none."""
    return ((record.first_ns("answer") or record.end_ns) - record.start_ns) / 1e9


def both(load: str, free: RunResult, timely: RunResult, seconds: float) -> Iterator[dict[str, Any]]:
    for told, result in (("no deadline", free), (f"{seconds:.2f} s", timely)):
        found = {"load": load, "deadline": told, **figures(result.records, seconds)}
        print(found, flush=True)
        yield found


def figures(records: Sequence[RequestRecord], seconds: float) -> dict[str, Any]:
    begins = sorted(map(begin, records))
    in_time = wilson(sum(each <= seconds for each in begins), len(records))
    correct = wilson(
        sum(right(str(each.request.messages[0]["content"]), each.answer) for each in records), len(records)
    )
    assert in_time is not None
    assert correct is not None
    return {
        "in_time": [in_time.value, in_time.low, in_time.high],
        "right": [correct.value, correct.low, correct.high],
        "begins_p50": median(begins),
        "begins_p95": begins[int(0.95 * (len(begins) - 1))],
        "thinking_tokens": fmean(record.reasoning_tokens or 0 for record in records),
        "did_not_think": fmean(record.decision.get("mode") == "no_think" for record in records),
    }


if __name__ == "__main__":
    main()
