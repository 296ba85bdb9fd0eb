"""From records to figures: `summarise` is pure, its result is plain data that goes to JSON as it stands."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.analysis import measures
from loadtest.analysis.distribution import Distribution, Interval, distribution, front, wilson
from loadtest.analysis.goals import Goal, Goodput, goodput
from loadtest.records import RequestRecord, RunResult


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """Over the replies that had a budget. `used_ratio` is used over asked, where more than nothing was asked."""

    replies: int
    asked: Distribution
    used: Distribution
    used_ratio: Distribution | None
    exceeded: Interval
    cut: Interval


@dataclass(frozen=True, slots=True)
class ReplyGroup:
    """Replies that share a variant (without variants: a route, or a mode), or a difficulty."""

    name: str
    replies: int
    accuracy: Interval | None
    think_ratio: Interval | None
    empty_answers: Interval | None
    measures: Mapping[str, Distribution]


@dataclass(frozen=True, slots=True)
class AccuracyFront:
    """Mean cost and accuracy of the variants that no other variant beats; `names` in the same order."""

    names: tuple[str, ...]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Throughputs are over the whole run, ramp and tail included. `think_ratio`: the share of replies that thought."""

    name: str
    arrivals: str
    rate: float | None
    concurrency: int | None
    requests: int
    succeeded: int
    errors: Mapping[str, int]
    seconds: float
    requests_per_second: float
    output_tokens_per_second: float
    reasoning_tokens_per_second: float
    total_reasoning_tokens: int
    total_output_tokens: int
    measures: Mapping[str, Distribution]
    think_ratio: Interval | None
    modes: Mapping[str, int]
    target_share: float | None
    empty_answers: Interval | None
    accuracy: Interval | None
    budgets: BudgetFigures | None
    goodput: Goodput | None
    variants: tuple[ReplyGroup, ...]
    difficulties: tuple[ReplyGroup, ...]
    accuracy_tokens_front: AccuracyFront | None
    accuracy_latency_front: AccuracyFront | None
    finish_reasons: Mapping[str, int]
    max_in_flight: int
    exact_tokens: bool
    cpu_share: float
    processes: int


def summarise(result: RunResult, goals: Sequence[Goal] = ()) -> Summary:
    """All the figures of one run. Latencies and tokens are those of the requests that succeeded."""
    good = [record for record in result.records if record.error is None]
    outputs, thoughts = _total(good, "output_tokens"), _total(good, "thinking_tokens")
    seconds = result.seconds
    variants = grouped(good, _variant)
    difficulties = grouped(
        (one for one in good if one.request.difficulty is not None), lambda one: f"{one.request.difficulty:g}"
    )
    return Summary(
        name=result.target.label,
        arrivals=result.arrivals,
        rate=result.rate,
        concurrency=result.concurrency,
        requests=len(result.records),
        succeeded=len(good),
        errors=_tally(record.error for record in result.records),
        seconds=seconds,
        requests_per_second=len(good) / seconds,
        output_tokens_per_second=outputs / seconds,
        reasoning_tokens_per_second=thoughts / seconds,
        total_reasoning_tokens=thoughts,
        total_output_tokens=outputs,
        measures=_distributions(good),
        think_ratio=_share(good, measures.thought),
        modes=_tally(_mode(record) for record in good),
        target_share=_target_share(good),
        empty_answers=_share(good, _is_empty),
        accuracy=_share(good, measures.correct),
        budgets=_budget_figures(good),
        goodput=goodput(result, goals) if goals else None,
        variants=variants,
        difficulties=tuple(sorted(difficulties, key=lambda one: float(one.name))),
        accuracy_tokens_front=accuracy_front(variants, "output_tokens"),
        accuracy_latency_front=accuracy_front(variants, "request_latency_ms"),
        finish_reasons=_tally(record.finish_reason for record in good),
        max_in_flight=max_in_flight(result.records),
        exact_tokens=any(record.exact_tokens for record in good),
        cpu_share=result.cpu_share,
        processes=result.processes,
    )


def max_in_flight(records: Iterable[RequestRecord]) -> int:
    """The most requests that were under way at one time."""
    changes = [(record.start_ns, 1) for record in records]
    changes += [(record.end_ns, -1) for record in records]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _tally(names: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(name for name in names if name is not None).most_common())


def _total(records: Iterable[RequestRecord], tokens: str) -> int:
    return sum(getattr(record, tokens) or 0 for record in records)


def _distributions(records: Sequence[RequestRecord]) -> dict[str, Distribution]:
    samples = {
        name: [value for record in records if (value := measure(record)) is not None]
        for name, measure in measures.MEASURES.items()
    }
    samples["inter_chunk_latency_ms"] = [gap for record in records for gap in measures.inter_chunk_latencies(record)]
    found = {name: distribution(sample) for name, sample in samples.items()}
    return {name: figures for name, figures in found.items() if figures is not None}


def _share(records: Iterable[RequestRecord], test: Callable[[RequestRecord], bool | None]) -> Interval | None:
    answers = [answer for record in records if (answer := test(record)) is not None]
    return wilson(sum(answers), len(answers))


def _is_empty(record: RequestRecord) -> bool:
    return not record.answer.strip() and record.finish_reason != "tool_calls"


def _mode(record: RequestRecord) -> str | None:
    mode, chosen_by = record.decision.get("mode"), record.decision.get("chosen_by")
    return None if mode is None else f"{mode}, chosen by {chosen_by}" if chosen_by else str(mode)


def _target_share(records: Iterable[RequestRecord]) -> float | None:
    """Target tokens over output tokens, of the replies whose record counts target tokens."""
    counted = [(tokens, one) for one in records if (tokens := measures.target_tokens(one)) is not None]
    outputs = _total((one for _, one in counted), "output_tokens")
    return sum(tokens for tokens, _ in counted) / outputs if outputs else None


def _budget_figures(records: Iterable[RequestRecord]) -> BudgetFigures | None:
    pairs = measures.budgets(records)
    all_asked, all_used = distribution(asked for asked, *_ in pairs), distribution(used for _, used, _ in pairs)
    exceeded = wilson(sum(used > asked for asked, used, _ in pairs), len(pairs))
    cut = wilson(sum(cut for *_, cut in pairs), len(pairs))
    if all_asked is None or all_used is None or exceeded is None or cut is None:
        return None
    ratio = distribution(used / asked for asked, used, _ in pairs if asked)
    return BudgetFigures(len(pairs), all_asked, all_used, ratio, exceeded, cut)


def _variant(record: RequestRecord) -> str:
    """Without variants in the workload, what else tells replies apart: the route, or the mode that they were given."""
    return record.request.variant or record.request.route or record.decision.get("mode") or "all"


def grouped(records: Iterable[RequestRecord], key: Callable[[RequestRecord], str]) -> tuple[ReplyGroup, ...]:
    """Replies that succeeded, by a name each, in order of first appearance."""
    members: dict[str, list[RequestRecord]] = {}
    for record in records:
        members.setdefault(key(record), []).append(record)
    return tuple(_group(name, found) for name, found in members.items())


def _group(name: str, records: Sequence[RequestRecord]) -> ReplyGroup:
    return ReplyGroup(
        name=name,
        replies=len(records),
        accuracy=_share(records, measures.correct),
        think_ratio=_share(records, measures.thought),
        empty_answers=_share(records, _is_empty),
        measures=_distributions(records),
    )


def accuracy_front(groups: Sequence[ReplyGroup], cost: str) -> AccuracyFront | None:
    """What no other group beats in accuracy against the mean of the measure `cost`."""
    known = [
        ((one.measures[cost].mean, one.accuracy.value), one.name)
        for one in groups
        if cost in one.measures and one.accuracy is not None
    ]
    points = front(point for point, _ in known)
    names = dict(reversed(known))
    return AccuracyFront(tuple(names[point] for point in points), tuple(points)) if points else None
