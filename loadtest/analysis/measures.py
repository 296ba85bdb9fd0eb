"""What is measured on one request. Names and definitions are guidellm's where it has them; times in milliseconds.

`time_to_first_output_token` is the field's name for the time to the first *answer* token. Two names are used two ways
elsewhere: what vLLM's benchmark calls TPOT is `inter_token_latency` here (as in guidellm and aiperf); its ITL, the gaps
themselves, is `inter_chunk_latency` (aiperf's name). A measure that a record cannot give is None, never 0.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final

from loadtest.records import RequestRecord

Measure = Callable[[RequestRecord], float | None]


def _since(start_ns: int, end_ns: int | None) -> float | None:
    return None if end_ns is None else (end_ns - start_ns) / 1e6


def time_to_first_token(record: RequestRecord) -> float | None:
    return _since(record.start_ns, record.first_ns())


def time_to_first_output_token(record: RequestRecord) -> float | None:
    return _since(record.start_ns, record.first_ns("answer"))


def inter_token_latency(record: RequestRecord) -> float | None:
    """(last - first token) / (tokens - 1)."""
    tokens = record.output_tokens
    if len(record.events) < 2 or tokens is None or tokens < 2:
        return None
    return (record.events[-1].at_ns - record.events[0].at_ns) / 1e6 / (tokens - 1)


def time_per_output_token(record: RequestRecord) -> float | None:
    """(last token - start) / tokens; the end of the reply stands for the last token where nothing was streamed."""
    tokens = record.output_tokens
    last_ns = record.events[-1].at_ns if record.events else record.end_ns
    return (last_ns - record.start_ns) / 1e6 / tokens if tokens else None


def inter_chunk_latencies(record: RequestRecord) -> list[float]:
    """Gaps between reads that brought tokens: what a reader of the stream feels."""
    times = [event.at_ns for event in record.events]
    return [(later - earlier) / 1e6 for earlier, later in pairwise(times)]


def request_latency(record: RequestRecord) -> float | None:
    return _since(record.start_ns, record.end_ns)


def request_scheduled_latency(record: RequestRecord) -> float | None:
    """From when the request was due: what coordinated omission hides."""
    return _since(record.scheduled_ns, record.end_ns)


def request_dispatch_delay(record: RequestRecord) -> float | None:
    return _since(record.scheduled_ns, record.start_ns)


def answer_tokens(record: RequestRecord) -> float | None:
    """Output less reasoning; tags count here unless the server's usage leaves them out."""
    if record.output_tokens is None or record.thinking_tokens is None:
        return None
    return record.output_tokens - record.thinking_tokens


def reasoning_share(record: RequestRecord) -> float | None:
    """Reasoning tokens over output tokens."""
    if not record.output_tokens or record.thinking_tokens is None:
        return None
    return record.thinking_tokens / record.output_tokens


_TIMES: Final = (
    time_to_first_token,
    time_to_first_output_token,
    inter_token_latency,
    time_per_output_token,
    request_latency,
    request_scheduled_latency,
    request_dispatch_delay,
)
TIMES: Final[Mapping[str, Measure]] = {f"{measure.__name__}_ms": measure for measure in _TIMES}
COUNTS: Final[Mapping[str, Measure]] = {
    "output_tokens": attrgetter("output_tokens"),
    "reasoning_tokens": attrgetter("thinking_tokens"),
    "answer_tokens": answer_tokens,
    "reasoning_share": reasoning_share,
}
MEASURES: Final = {**TIMES, **COUNTS}


def _budgets(record: RequestRecord) -> Mapping[str, Any]:
    budget = record.decision.get("budget")
    return budget if isinstance(budget, Mapping) else {}


def budget_asked(record: RequestRecord) -> int | None:
    """What the client asked for: as the server understood it, else as it stands in the request; None for no limit."""
    asked = _budgets(record).get("requested")
    if asked is None:
        extension = record.request.body.get("reasond")
        ours = extension.get("budget") if isinstance(extension, Mapping) else None
        asked = ours if ours is not None else record.request.body.get("thinking_token_budget")
    return asked if isinstance(asked, int) and asked >= 0 else None


def budget_used(record: RequestRecord) -> int | None:
    used = _budgets(record).get("used")
    return used if isinstance(used, int) else record.thinking_tokens


def was_cut(record: RequestRecord) -> bool:
    return bool(record.decision.get("cut") or _budgets(record).get("cut"))


def budgets(records: Iterable[RequestRecord]) -> list[tuple[int, int, bool]]:
    """Asked, used, and whether thinking was cut, of each reply that had a budget."""
    return [
        (asked, used, was_cut(record))
        for record in records
        if (asked := budget_asked(record)) is not None and (used := budget_used(record)) is not None
    ]


def thought(record: RequestRecord) -> bool | None:
    """Whether the reply thought: by its decision record, else by its reasoning."""
    mode = record.decision.get("mode")
    if mode in ("think", "no_think"):
        return bool(mode == "think")
    return None if record.thinking_tokens is None and not record.reasoning else bool(record.thinking_tokens)


def target_tokens(record: RequestRecord) -> int | None:
    """Tokens that the target model wrote (Speculative Thinking)."""
    tokens = record.decision.get("target_tokens")
    return tokens if isinstance(tokens, int) else None


_NUMBER: Final = re.compile(r"-?\d+(?:[.,]\d+)*")
_BOXED: Final = re.compile(r"\\boxed\{([^{}]*)\}")


def correct(record: RequestRecord) -> bool | None:
    """Whether the answer says what was expected; None where nothing is known to be right, or the request failed.

    The answer is what stands in the last `\\boxed{}`, else, if a number is expected, the last number in the text, else
    the whole text. Numbers compare as numbers, text without regard to case and outer blanks. An empty answer is wrong.
    """
    expected = record.request.answer
    if expected is None or record.error is not None:
        return None
    boxed = _BOXED.findall(record.answer)
    text = (boxed[-1] if boxed else record.answer).strip()
    wanted = _number(expected)
    if wanted is None:
        return text.casefold() == expected.strip().casefold()
    numbers = _NUMBER.findall(text)
    return bool(numbers) and _number(numbers[-1]) == wanted


def _number(text: str) -> float | None:
    text = text.strip().replace(",", "")
    return float(text) if _NUMBER.fullmatch(text) else None
