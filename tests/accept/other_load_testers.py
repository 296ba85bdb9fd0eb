"""guidellm and aiperf, each in an environment of its own: run as a user runs them, and what they said they measured.

Where they are is told by REASOND_GUIDELLM and REASOND_AIPERF (paths of the commands), else by PATH. Figures come back
under reasond-load's names, each the mean over requests, times in milliseconds.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest

from tests.processes import ROOT

Figures = Mapping[str, float]
TOKENIZER = ROOT / "demo/hybrid"


@dataclass(frozen=True, slots=True)
class Load:
    """The same for everyone: questions one a line, so many in flight, each question once."""

    url: str
    route: str
    questions: tuple[str, ...]
    concurrency: int


def command(name: str) -> str:
    """Skips the test, with the reason, where the tool is not installed."""
    variable = f"REASOND_{name.upper()}"
    found = os.environ.get(variable) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: put it into an environment of its own and its path into {variable}")
    return found


def guidellm(load: Load, folder: Path) -> Figures:
    _write(folder / "questions.jsonl", "prompt", load.questions)
    _run(
        [
            *(command("guidellm"), "run", "--disable-console-interactive"),
            *("--backend", f"kind=openai_http,target={load.url},model={load.route}"),
            *("--data", f"kind=json_file,path={folder / 'questions.jsonl'}"),
            *("--profile", f"kind=concurrent,streams={load.concurrency}"),
            *("--constraint", f"kind=max_requests,count={len(load.questions)}"),
            *("--tokenizer", f"kind=hf_auto,model={TOKENIZER}"),
            *("--output", f"kind=json,path={folder / 'guidellm.json'}"),
        ],
        folder,
    )
    (said,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    totals = said["metrics"]["request_totals"]
    # of 96 it once told of 95, with none failed: its last update can come after its end
    assert totals["successful"] == totals["total"] >= 0.98 * len(load.questions), totals

    requests = said["requests"]["successful"]  # its own means weight requests (by their tokens, by concurrency)
    tokens = sum(request["output_tokens"] for request in requests)
    times = ("time_to_first_token_ms", "time_to_first_output_token_ms", "inter_token_latency_ms")
    return {
        "requests_per_second": len(requests) / said["duration"],
        "output_tokens_per_second": tokens / said["duration"],
        "output_tokens": tokens / len(requests),
        **{name: fmean(request[name] for request in requests) for name in times},
        "request_latency_ms": 1000 * fmean(request["request_latency"] for request in requests),
    }


def aiperf(load: Load, folder: Path) -> Figures:
    _write(folder / "questions.jsonl", "text", load.questions)
    _run(
        [
            *(command("aiperf"), "profile", "--ui", "none", "--url", load.url, "--model", load.route),
            *("--endpoint-type", "chat", "--streaming"),
            *("--input-file", str(folder / "questions.jsonl"), "--custom-dataset-type", "single_turn"),
            *("--dataset-sampling-strategy", "sequential", "--request-count", str(len(load.questions))),
            *("--concurrency", str(load.concurrency), "--tokenizer", str(TOKENIZER)),
            *("--output-artifact-dir", str(folder / "aiperf")),
        ],
        folder,
    )
    said = json.loads((folder / "aiperf/profile_export_aiperf.json").read_text())
    assert said["request_count"]["avg"] == len(load.questions) and not said["request_error_rate"]["avg"]
    # its output_* and inter_token_latency count what it tokenised itself: the text, without tags and the reply's end
    usage = said["total_usage_completion_tokens"]["avg"]
    return {
        "requests_per_second": said["request_throughput"]["avg"],
        "output_tokens_per_second": usage / said["benchmark_duration"]["avg"],
        "output_tokens": usage / len(load.questions),
        "time_to_first_token_ms": said["time_to_first_token"]["avg"],
        "time_to_first_output_token_ms": said["time_to_first_output_token"]["avg"],
        "inter_chunk_latency_ms": said["inter_chunk_latency"]["avg"],
        "request_latency_ms": said["request_latency"]["avg"],
    }


TOOLS: Mapping[str, Callable[[Load, Path], Figures]] = {"guidellm": guidellm, "aiperf": aiperf}


def _write(path: Path, column: str, questions: tuple[str, ...]) -> None:
    path.write_text("".join(json.dumps({column: question}) + "\n" for question in questions))


def _run(arguments: list[str], folder: Path) -> None:
    # aiperf does not find a tokenizer's folder when the hub's library is told to stay offline
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_HUB_", "PYTHON"))}
    ran = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
