"""Accuracy of the demo pair through the server, on test questions: `python -m tests.accept.speculative_pair`.

The small model alone, the target alone, and both together with takeovers of several lengths; then accept-or-rewrite.
Every variant gets the same questions. Writes JSON.
"""

import argparse
import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from loadtest.analysis.distribution import wilson
from loadtest.load.arrivals import Concurrent
from loadtest.load.run import run
from loadtest.records import LoadRequest, LoadTarget, RequestRecord
from tests.bench.pair import CONFIG, questions, right, settings
from tests.processes import ROOT, reasond

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    route: str
    lengths: Mapping[str, int] | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {} if self.lengths is None else {"reasond": {"speculative": dict(self.lengths)}}


VARIANTS = (
    Variant("small alone", "small"),
    *(Variant(f"takeovers of {tokens}", "speculative", {"takeover_tokens": tokens}) for tokens in (4, 8, 16, 32)),
    Variant("paper's constants", "speculative-paper"),
    Variant("accept or rewrite", "accept"),
    Variant("target alone", "target"),
)
DRAFTED = Variant("target with drafts", "drafted")
SMALL, DEMO, TARGET = "small alone", "takeovers of 8", "target alone"


def main() -> None:
    options = parser().parse_args()
    config = ROOT / "runs/speculative-pair.toml"
    for file in (options.out, config):
        file.parent.mkdir(parents=True, exist_ok=True)
    told = settings(options.small, options.target, options.config, options.drafts)
    config.write_text(told, encoding="utf-8")
    rows: dict[str, Any] = {}
    verdicts: dict[str, list[bool]] = {}
    with reasond(config) as (url, _):
        for variant in (*VARIANTS, DRAFTED) if options.drafts else VARIANTS:
            records = ask(url, variant, options)
            verdicts[variant.name] = [right(question_of(record), record.answer) for record in records]
            rows[variant.name] = row(variant, records, verdicts[variant.name])
            print(line(variant.name, rows[variant.name]), flush=True)
    for name, other in ((SMALL, DEMO), (SMALL, TARGET)):
        value, low, high = paired(verdicts[name], verdicts[other])
        print(f"{other} over {name}: {100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
        rows[other]["points_over_small"] = [value, low, high]
    options.out.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--config", type=Path, default=CONFIG)
    top.add_argument("--small", type=Path, default=ROOT / "demo/small")
    top.add_argument("--target", type=Path, default=ROOT / "demo/target")
    top.add_argument("--drafts", action="store_true", help="a line more: the target with vLLM's speculative decoding")
    top.add_argument("--questions", type=int, default=400)
    top.add_argument("--difficulties", type=int, nargs="*", default=(1, 2))
    top.add_argument("--concurrency", type=int, default=32)
    top.add_argument("--max-tokens", type=int, default=900)
    top.add_argument("--temperature", type=float, default=0.6)
    top.add_argument("--seed", type=int, default=20261121)
    top.add_argument("--split", choices=("test", "train"), default="test", help="train: for choosing lengths")
    top.add_argument("--out", type=Path, default=ROOT / "runs/speculative-pair.json")
    return top


def ask(url: str, variant: Variant, options: argparse.Namespace) -> Sequence[RequestRecord]:
    drawn = questions(options.questions, tuple(options.difficulties), options.split, options.seed)
    body = {"temperature": options.temperature, "max_tokens": options.max_tokens, **variant.body}
    requests = [
        LoadRequest(
            str(number), ({"role": "user", "content": question.text},), body={**body, "seed": number}, stream=False
        )
        for number, question in enumerate(drawn)
    ]
    records = asyncio.run(run(LoadTarget(url, variant.route), requests, Concurrent(options.concurrency))).records
    if failed := [record for record in records if record.error]:
        raise SystemExit(f"{len(failed)} requests of {variant.name} went wrong; the first: {failed[0]}")
    return sorted(records, key=lambda record: int(record.request.id))


def question_of(record: RequestRecord) -> str:
    return str(record.request.messages[0]["content"])


def row(variant: Variant, records: Sequence[RequestRecord], verdicts: Sequence[bool]) -> dict[str, Any]:
    tokens = [record.completion_tokens or 0 for record in records]
    alone = variant.route in ("target", "drafted")
    by_target = tokens if alone else [record.decision.get("target_tokens") or 0 for record in records]
    takeovers: dict[str, int] = {}
    for record in records:
        for kind, count in (record.decision.get("takeovers") or {}).items():
            takeovers[kind] = takeovers.get(kind, 0) + count
    accuracy = wilson(sum(verdicts), len(verdicts))
    assert accuracy is not None
    return {
        "questions": len(records),
        "accuracy": [accuracy.value, accuracy.low, accuracy.high],
        "tokens": fmean(tokens),
        "target_tokens": fmean(by_target),
        "target_share": sum(by_target) / sum(tokens),
        "discarded_tokens": fmean(record.decision.get("discarded_tokens") or 0 for record in records),
        "takeovers": takeovers,
        "cut_short": fmean(record.finish_reason == "length" for record in records),
    }


def line(name: str, found: Mapping[str, Any]) -> str:
    value, low, high = (100 * share for share in found["accuracy"])
    share = 100 * found["target_share"]
    return (
        f"{name:20} accuracy {value:5.1f} [{low:.1f}, {high:.1f}]  tokens {found['tokens']:6.1f}  target's "
        f"{found['target_tokens']:6.1f} ({share:.1f} %)  discarded {found['discarded_tokens']:.1f}  at the limit "
        f"{100 * found['cut_short']:.1f} %  {found['takeovers']}"
    )


def paired(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float, float]:
    """How much more often b is right than a, with a 95 % bootstrap interval over the questions that both got."""
    gains = [int(y) - int(x) for x, y in zip(a, b, strict=True)]
    rng = random.Random(0)
    means = sorted(fmean(rng.choices(gains, k=len(gains))) for _ in range(RESAMPLES))
    return fmean(gains), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


if __name__ == "__main__":
    main()
