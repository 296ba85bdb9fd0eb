"""A black-box client for any OpenAI-compatible server. Imports nothing of ours.

One run: `await run(Target(url, model), requests, Concurrent(8))`, then `summarise(result)`. See docs/loadtest.md.
"""

from loadtest.arrivals import Concurrent, Constant, Gamma, Trace, poisson, synchronous
from loadtest.compare import Comparison, Side, compare
from loadtest.goals import Goal
from loadtest.records import Record, Request, Result, Target
from loadtest.run import run
from loadtest.stats import Summary, summarise
from loadtest.workload import Variant, crossed, last_digit, load, mixed, repeated

__all__ = [
    "Comparison",
    "Concurrent",
    "Constant",
    "Gamma",
    "Goal",
    "Record",
    "Request",
    "Result",
    "Side",
    "Summary",
    "Target",
    "Trace",
    "Variant",
    "compare",
    "crossed",
    "last_digit",
    "load",
    "mixed",
    "poisson",
    "repeated",
    "run",
    "summarise",
    "synchronous",
]
