"""A black-box client for any OpenAI-compatible server. Imports nothing of ours.

One run: `await run(LoadTarget(url, model), requests, Concurrent(8))`, then `summarise(result)`. See docs/loadtest.md.
`load` asks a server, `analysis` makes figures of the records, `report` shows them; all three stand on `records`.
"""

from loadtest.analysis.comparison import LoadComparison
from loadtest.analysis.goals import Goal
from loadtest.analysis.summary import Summary, summarise
from loadtest.load.arrivals import Concurrent, Constant, Gamma, Trace, poisson, synchronous
from loadtest.load.run import run
from loadtest.load.series import compare
from loadtest.load.workload import Variant, crossed, last_digit, load_requests, mixed, repeated
from loadtest.records import ComparedSide, LoadRequest, LoadTarget, RequestRecord, RunResult

__all__ = [
    "ComparedSide",
    "Concurrent",
    "Constant",
    "Gamma",
    "Goal",
    "LoadComparison",
    "LoadRequest",
    "LoadTarget",
    "RequestRecord",
    "RunResult",
    "Summary",
    "Trace",
    "Variant",
    "compare",
    "crossed",
    "last_digit",
    "load_requests",
    "mixed",
    "poisson",
    "repeated",
    "run",
    "summarise",
    "synchronous",
]
