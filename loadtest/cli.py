"""The command `reasond-load`: run, sweep, search, compare."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from loadtest.analysis.summary import summarise
from loadtest.load import config
from loadtest.load.arrivals import Concurrent, poisson
from loadtest.load.machine import AUTOGROUP, scheduler_warning
from loadtest.load.processes import run_in
from loadtest.load.run import run
from loadtest.load.series import RateTrial, best, compare, search, sweep, sweep_range
from loadtest.load.workload import repeated
from loadtest.records import LoadRequest, LoadTarget, RunResult
from loadtest.report import files, plots, tables
from loadtest.report.page import comparison_report, report
from loadtest.report.progress import progress_line


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if not one request succeeded, or no rate met the goals; 2 for arguments that make no sense."""
    parser = config.parser()
    args = parser.parse_args(argv)
    if args.command == "search" and not args.goal:
        parser.error("search needs at least one --goal")
    if args.html:
        try:
            plots.require_matplotlib()
        except ModuleNotFoundError as error:
            parser.error(str(error))
    for warning in dict.fromkeys(scheduler_warning(url, AUTOGROUP) for url in config.urls(args)):
        if warning is not None:
            print(f"reasond-load: {warning}", file=sys.stderr)
    commands = {"run": _run, "sweep": _sweep, "search": _search, "compare": _compare}
    try:
        return int(uvloop.run(commands[args.command](args)))
    except KeyboardInterrupt:
        return 130
    except config.InvalidArguments as error:
        parser.error(str(error))
    except OSError as error:  # no such file, no such server
        print(f"reasond-load: {error}", file=sys.stderr)
        return 1


async def _prepare(args: Namespace) -> tuple[LoadTarget, list[LoadRequest]]:
    """Where to send what, the warm-up done."""
    target, requests = config.target(args, args.url, args.model), config.requests(args)
    if args.warmup:
        await run(target, repeated(requests, args.warmup), Concurrent(min(args.warmup, 8)), timeout=args.timeout)
    return target, requests


async def _run(args: Namespace) -> int:
    target, requests = await _prepare(args)
    plan, options = config.arrivals(args), config.options(args)
    async with progress_line(f"{target.label}", args.quiet) as live:
        result = await run_in(args.processes, target, requests, plan, live=live, **options)
    return _publish(args, [result])


async def _sweep(args: Namespace) -> int:
    target, requests = await _prepare(args)
    options = config.options(args)
    if args.rates:
        levels = sweep(target, requests, [poisson(rate, args.seed) for rate in args.rates], args.processes, **options)
    elif args.concurrencies:
        levels = sweep(target, requests, [Concurrent(n) for n in args.concurrencies], args.processes, **options)
    else:
        levels = sweep_range(target, requests, args.steps, args.processes, args.seed, **options)
    results = []
    async for result in levels:
        results.append(result)
        _log(args, f"{result.arrivals}: {len(result.records)} requests in {result.seconds:.1f} s")
    return _publish(args, results)


async def _search(args: Namespace) -> int:
    target, requests = await _prepare(args)
    trials: list[RateTrial] = []
    async for trial in search(
        target,
        requests,
        args.goal,
        first=args.first_rate,
        attainment=args.attainment,
        precision=args.precision,
        trial_seconds=args.trial_seconds,
        seed=args.seed,
        processes=args.processes,
        **config.options(args),
    ):
        trials.append(trial)
        verdict = "met" if trial.met else "not met"
        _log(args, f"{tables.number(trial.rate)} requests/s: {tables.percent_interval(trial.fraction)} good, {verdict}")
    headline = "no rate met the goals"
    if (found := best(trials)) is not None:
        headline = f"highest rate that met the goals: {tables.number(found.rate)} requests/s"
    status = _publish(args, [trial.result for trial in trials], headline)
    print(f"\n{headline}")
    return status if found is not None else 1


async def _compare(args: Namespace) -> int:
    sides, arrivals = config.sides(args), config.arrivals(args)
    async with progress_line("\n".join(side.target.label for side in sides), args.quiet) as live:
        options = {"rounds": args.rounds, "warmup": args.warmup, "live": live, **config.options(args)}
        comparison = await compare(sides, arrivals, **options)
    print(tables.comparison_text(comparison))
    results = [result for side in comparison.sides for result in side.results]
    return _write(args, results, files.comparison_data(comparison), lambda: comparison_report(comparison))


def _publish(args: Namespace, results: Sequence[RunResult], headline: str = "") -> int:
    summaries = [summarise(result, args.goal) for result in results]
    print("\n\n".join(tables.run_text(summary) for summary in summaries))
    data = {"headline": headline, "runs": summaries}
    return _write(args, results, data, lambda: report(results, args.goal, headline))


def _write(args: Namespace, results: Sequence[RunResult], data: Any, page: Callable[[], str]) -> int:
    """The files that were asked for. Returns the exit status."""
    if args.json:
        files.write_json(args.json, data)
    if args.csv:
        files.write_csv(args.csv, results)
    if args.html:
        args.html.write_text(page(), encoding="utf-8")
    return 0 if any(record.error is None for result in results for record in result.records) else 1


def _log(args: Namespace, words: str) -> None:
    if not args.quiet:
        print(words, file=sys.stderr)
