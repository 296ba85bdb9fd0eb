"""Command-line arguments, and what they mean: targets, workloads, arrivals."""

import argparse
import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.analysis.goals import Goal, parse_goal
from loadtest.load import workload
from loadtest.load.arrivals import ArrivalPlan, Concurrent, Constant, Gamma, Trace
from loadtest.load.workload import Variant
from loadtest.records import ComparedSide, LoadRequest, LoadTarget


class InvalidArguments(Exception):
    """The arguments cannot be meant: the message says which."""


def parser() -> ArgumentParser:
    top = ArgumentParser(
        "reasond-load", description="Measures an OpenAI-compatible server and what its reasoning costs."
    )
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="one run")
    sweep = commands.add_parser("sweep", help="runs at rising load")
    search = commands.add_parser("search", help="the highest rate that meets the goals")
    compare = commands.add_parser("compare", help="servers or settings in alternation: ratios with intervals")
    for command in (run, sweep, search, compare):
        command.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    for command in (run, compare):
        _arrivals(command)
    for command in (run, sweep, search, compare):
        _workload(command)
        _limits(command)
        _outputs(command)
    for command in (run, sweep, search):
        command.add_argument("--processes", type=int, default=1, help="client processes to share the load")
        command.add_argument(
            "--goal", type=_goal, action="append", default=[], metavar="NAME:MS", help="ttft, ttfot, itl, tpot or e2el"
        )
    _sweep(sweep)
    _search(search)
    _compare(compare)
    return top


def _arrivals(command: ArgumentParser) -> None:
    group = command.add_argument_group("arrivals (default: one request at a time)")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--concurrency", type=int, metavar="N", help="closed loop: N requests in flight")
    how.add_argument("--rate", type=float, metavar="R", help="open loop: R requests a second, Poisson")
    how.add_argument("--constant", type=float, metavar="R", help="open loop: R requests a second, evenly")
    how.add_argument("--trace", action="store_true", help="open loop: the workload's own times ('at')")
    group.add_argument("--burstiness", type=float, default=1.0, help="with --rate: shape of the gamma-distributed gaps")
    group.add_argument("--speed", type=float, default=1.0, help="with --trace: times as fast")
    group.add_argument("--ramp", type=float, default=0.0, help="with --concurrency: seconds over which the first start")


def _workload(command: ArgumentParser) -> None:
    group = command.add_argument_group("workload (default: 100 generated questions with known answers)")
    group.add_argument("--model", required=True, help="the model or route to ask for")
    group.add_argument("--key-env", metavar="NAME", help="environment variable that holds the API key")
    group.add_argument(
        "--data", type=Path, metavar="FILE", help="JSON lines: messages or prompt, answer, difficulty, at"
    )
    group.add_argument("--depths", type=_integers, default=[1, 2, 4, 8], help="steps of generated questions: 1,2,4,8")
    group.add_argument("--requests", type=int, metavar="N", help="so many (a file's are repeated or cut)")
    group.add_argument("--body", type=_object, default={}, metavar="JSON", help="fields to send with every request")
    group.add_argument(
        "--variant",
        type=_variant,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='an entry of a mix: fields to send, beside them "weight" and "route"; may be repeated',
    )
    group.add_argument("--cross", action="store_true", help="every request once for every variant, instead of drawing")
    group.add_argument("--no-stream", action="store_true", help="ask for whole replies")
    group.add_argument("--seed", type=int, default=0)


def _limits(command: ArgumentParser) -> None:
    group = command.add_argument_group("limits")
    group.add_argument("--timeout", type=float, default=600.0, help="seconds for each request (default: %(default)g)")
    group.add_argument("--warmup", type=int, default=0, metavar="N", help="first send N requests that are not counted")
    group.add_argument("--max-seconds", type=float, help="start nothing later than this")
    group.add_argument("--max-concurrency", type=int, help="open loop: hold requests back while so many are in flight")


def _outputs(command: ArgumentParser) -> None:
    group = command.add_argument_group("output")
    for kind in ("json", "csv", "html"):
        group.add_argument(f"--{kind}", type=Path, metavar="FILE")
    group.add_argument("--quiet", action="store_true", help="no progress")


def _sweep(command: ArgumentParser) -> None:
    how = command.add_mutually_exclusive_group()
    how.add_argument("--rates", type=_numbers, metavar="R,R,...", help="Poisson rates")
    how.add_argument("--concurrencies", type=_integers, metavar="N,N,...", help="closed loops")
    how.add_argument("--steps", type=int, default=5, help="rates between one-at-a-time and all-at-once (default: 5)")


def _search(command: ArgumentParser) -> None:
    command.add_argument("--first-rate", type=float, default=1.0, help="requests a second to begin with (default: 1)")
    command.add_argument("--attainment", type=float, default=0.95, help="share of requests to meet all goals (0.95)")
    command.add_argument("--precision", type=float, default=0.1, help="how closely to find the rate (0.1: to 10 %%)")
    command.add_argument("--trial-seconds", type=float, default=20.0, help="length of each trial (20)")


def _compare(command: ArgumentParser) -> None:
    command.add_argument("servers", nargs="*", metavar="URL", help="a side each; ratios are the first over each other")
    command.add_argument(
        "--side",
        type=_named,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='a further side: fields to send, beside them "model" and "url" (else the first URL); may be repeated',
    )
    command.add_argument("--rounds", type=int, default=6, help="in each, every side runs once (default: %(default)s)")
    command.set_defaults(warmup=8)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {text}")
    return value


def _named(text: str) -> tuple[str, dict[str, Any]]:
    name, equals, fields = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"not NAME=JSON: {text}")
    return name, _object(fields)


def _variant(text: str) -> Variant:
    name, body = _named(text)
    return Variant(name, float(body.pop("weight", 1.0)), route=body.pop("route", None), body=body)


def _goal(text: str) -> Goal:
    try:
        return parse_goal(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def target(args: Namespace, url: str, model: str) -> LoadTarget:
    """Raises InvalidArguments if the key's variable is not set."""
    if args.key_env is not None and args.key_env not in os.environ:
        raise InvalidArguments(f"--key-env: there is no {args.key_env} in the environment")
    return LoadTarget(url, model, os.environ[args.key_env] if args.key_env else None)


def urls(args: Namespace) -> list[str]:
    """Every server that will be asked."""
    if args.command != "compare":
        return [args.url]
    return [*args.servers, *(fields.get("url", _first(args)) for _, fields in args.side)]


def _first(args: Namespace) -> str:
    """The server of a side that names none."""
    return str(args.servers[0] if args.servers else args.url)


def sides(args: Namespace) -> list[ComparedSide]:
    """Those of a comparison, servers first. Raises InvalidArguments for fewer than two, OSError."""
    found = [ComparedSide(target(args, url, args.model), requests(args)) for url in args.servers]
    for name, fields in args.side:
        body = {key: value for key, value in fields.items() if key not in ("url", "model")}
        asked = target(args, fields.get("url", _first(args)), fields.get("model", args.model))
        found.append(ComparedSide(asked, requests(args, body), name))
    if len(found) < 2:
        raise InvalidArguments("compare needs two sides or more: URLs, or --side")
    return found


def requests(args: Namespace, more: Mapping[str, Any] | None = None) -> list[LoadRequest]:
    """The workload of the arguments; `more` are further fields of every body. Raises InvalidArguments, OSError."""
    try:
        return _requests(args, {**args.body, **(more or {})})
    except ValueError as error:
        raise InvalidArguments(str(error)) from error


def _requests(args: Namespace, body: Mapping[str, Any]) -> list[LoadRequest]:
    if args.data is not None:
        found = workload.load_requests(args.data, body)
        found = workload.repeated(found, args.requests) if args.requests else found
    else:
        found = workload.last_digit(args.requests or 100, args.seed, args.depths, body)
    if args.variant:
        found = workload.crossed(found, args.variant) if args.cross else workload.mixed(found, args.variant, args.seed)
    return [replace(request, stream=False) for request in found] if args.no_stream else found


def arrivals(args: Namespace) -> ArrivalPlan:
    if args.trace:
        return Trace(args.speed)
    if args.constant is not None:
        return Constant(args.constant)
    if args.rate is not None:
        return Gamma(args.rate, args.burstiness, args.seed)
    return Concurrent(args.concurrency or 1, args.ramp)


def options(args: Namespace) -> dict[str, Any]:
    """The keywords of `run` that every command has."""
    return {"timeout": args.timeout, "max_seconds": args.max_seconds, "max_concurrency": args.max_concurrency}
