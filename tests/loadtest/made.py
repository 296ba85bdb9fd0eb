"""Records made by hand: every time in milliseconds from zero."""

from collections.abc import Sequence
from typing import Any

from loadtest import LoadRequest, LoadTarget, RequestRecord, RunResult
from loadtest.records import OutputEvent, OutputKind

MS = 1_000_000


def made(
    number: int = 0,
    *,
    scheduled: float = 0,
    start: float = 0,
    end: float = 100,
    reasoning: Sequence[float] = (),
    answer: Sequence[float] = (),
    request: dict[str, Any] | None = None,
    **fields: Any,
) -> RequestRecord:
    """One token for each moment named in `reasoning` and `answer`."""
    kinds: list[tuple[OutputKind, Sequence[float]]] = [("reasoning", reasoning), ("answer", answer)]
    return RequestRecord(
        request=LoadRequest(str(number), (), **(request or {})),
        scheduled_ns=int(scheduled * MS),
        start_ns=int(start * MS),
        sent_ns=int(start * MS),
        first_byte_ns=None,
        end_ns=int(end * MS),
        events=tuple(OutputEvent(int(at * MS), kind, 1) for kind, times in kinds for at in times),
        **{"finish_reason": "stop", "status": 200, **fields},
    )


def result(records: Sequence[RequestRecord], seconds: float = 1.0, name: str = "made") -> RunResult:
    target = LoadTarget("http://127.0.0.1:1", "m", name=name)
    return RunResult(target, "by hand", None, None, tuple(records), 0.0, 0, int(seconds * 1e9), 0.5)
